"""``port``: the command line. Subcommands are imported only when they run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import click

import port
from port.errors import OUT_OF_MEMORY, PortError, close_matches, is_out_of_memory

# Name → (module in port.commands, one line for the list). The command in the module has the
# name of the module.
COMMANDS = {
    "align": ("align", "Crop the faces of photographs as SphereFace does."),
    "compare": ("compare", "Say whether two photographs show one person."),
    "convert": ("convert", "Turn a net into ONNX or PyTorch, and weights into other files."),
    "compute-mean": ("compute_mean", "Write the mean image of a database."),
    "convert-imageset": ("convert_imageset", "Write a list's images into a database."),
    "demo": ("demo", "Train on embedded sample faces and show what was learnt."),
    "detect": ("detect", "Find faces and their five points in photographs."),
    "draw": ("draw", "Draw a net's graph, with shapes, as SVG or PNG."),
    "extract": ("extract", "Write the features of many pictures into a file."),
    "identify": ("identify", "Name the faces of a video by a gallery of people."),
    "info": ("info", "Show a net's layers, shapes, parameters and MACs, or a file's weights."),
    "layers": ("layers", "Table of the layer types that the port knows."),
    "list": ("face_list", "Write the training list of a folder of faces."),
    "megaface": ("megaface", "Find people among up to a million strangers."),
    "prepare": ("prepare", "Photographs to a training list: detect, align, list."),
    "quality": ("quality", "Angles within and between people, identification."),
    "sample-faces": ("sample_faces", "Write a set of rendered faces, a list and pairs."),
    "test": ("test", "Run a net in the TEST phase and average its outputs."),
    "time": ("time", "Measure every layer, forward and backward."),
    "train": ("train", "Train a net as Caffe would."),
    "upgrade-net": ("upgrade_net", "Write a net or caffemodel of any age in today's format."),
    "upgrade-solver": ("upgrade_solver", "Write an old solver in today's format."),
    "verify": ("verify", "The LFW test: accuracy of a face model on pairs."),
}

EPILOG = """\b
Examples:
  port demo
  port train reference_prototxt/sphereface_model.prototxt --source list.txt --num-classes auto
  port info reference_prototxt/sphereface_deploy.prototxt
"""


class LazyGroup(click.Group):
    """A group that knows its commands' names and first lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f"port.commands.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, COMMANDS[name][0])
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command '{args[0]}'{close_matches(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(port.__version__, prog_name="port")
def cli() -> None:
    """SphereFace's Caffe system on PyTorch: train, test and inspect Caffe nets.

    'port COMMAND --help' explains a command and shows examples.
    """


class _Notes(logging.Handler):
    """Says on stderr what was upgraded in memory, once for each file however often it is read."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self.said:
            self.said.add(message)
            click.echo(f"note: {message}", err=True)


@contextmanager
def _noting() -> Iterator[None]:
    log, handler = logging.getLogger("port"), _Notes()
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 the job failed, 2 wrong usage, 130 interrupted."""
    try:
        with _noting():
            code = cli.main(prog_name="port", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except (PortError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        click.echo(f"error: {OUT_OF_MEMORY}: {error}", err=True)
        sys.exit(1)
