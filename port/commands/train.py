"""``port train``: train a net as Caffe would."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from port.commands.options import (
    EXISTING,
    HELP,
    PROTOTXT,
    add,
    data_options,
    device_option,
    override_data,
    pick_device,
    python_option,
    report_bad,
    set_num_classes,
)
from port.errors import PrototxtError, SolverError

if TYPE_CHECKING:
    from port.solver.progress import Progress
    from port.solver.solver import Solver


@click.command(context_settings=HELP)
@click.argument("file", metavar="NET_OR_SOLVER", type=PROTOTXT)
@click.option("--solver", "solver_file", type=PROTOTXT, help="The solver, when a net is given.")
@click.option("--weights", help="Start from these .caffemodel files (comma separated).")
@click.option("--snapshot", type=EXISTING, help="Resume from this .solverstate.")
@add(data_options)
@click.option("--num-classes", metavar="N|auto", help="Outputs of the head; auto: from the list.")
@click.option("--max-iter", type=click.IntRange(0), help="In place of the solver's own.")
@click.option("--base-lr", type=click.FloatRange(0), help="In place of the solver's own.")
@click.option("--display", type=click.IntRange(0), help="In place of the solver's own.")
@click.option("--seed", type=click.IntRange(0), help="Makes fillers, order and mirroring repeat.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Snapshot folder.")
@click.option(
    "--log",
    "log_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the log there too.",
)
@click.option(
    "--gradient",
    type=click.Choice(["caffe", "exact"]),
    default="caffe",
    show_default=True,
    help="MarginInnerProduct's backward: Caffe's or the paper's.",
)
@click.option(
    "--restart-lambda", is_flag=True, help="On resume start lambda's schedule over, as Caffe does."
)
@click.option("--level", type=int, default=0, show_default=True, help="NetState's level.")
@click.option("--stage", default="", help="NetState's stages (comma separated).")
@python_option
@device_option
def train(file: Path, solver_file: Path | None, log_file: Path | None, **options: Any) -> None:
    """Train a net step for step as Caffe does, and write snapshots that Caffe can read.

    Given a net, the solver is looked for beside it; given a solver, it names the net. Paths in
    either are tried from the working directory, then beside the file that names them.
    Ctrl-C writes a snapshot and stops; SIGHUP writes one and goes on.

    \b
    Examples:
      port train reference_prototxt/sphereface_model.prototxt --source faces.txt --num-classes auto
      port train sphereface_solver.prototxt --weights sphereface_model.caffemodel --out tuned
      port train sphereface_solver.prototxt --snapshot result/sphereface_model_iter_1000.solverstate
    """
    from port.solver.nets import set_train_state

    if options["weights"] and options["snapshot"]:
        raise click.UsageError("give --snapshot to resume or --weights to fine-tune, not both")
    param, folder = solver_and_folder(file, solver_file)
    _override(param, options)
    set_train_state(param, options["level"], options["stage"])
    with _reporting(log_file) as (sink, on_iteration):
        solver = _make(param, folder, sink, on_iteration, options)
        try:
            finished = solver.solve()
        finally:
            solver.close()
    report_bad(solver.net)
    if not finished:
        state = f"{param.snapshot_prefix}_iter_{solver.iteration}.solverstate"
        click.echo(f"stopped early; go on with --snapshot {state}", err=True)
        sys.exit(130)


def solver_and_folder(file: Path, solver_file: Path | None) -> tuple[Any, Path]:
    """The SolverParameter of a net or solver file, and the folder its paths are tried in.

    Raises PrototxtError or SolverError.
    """
    from port.prototxt import read_solver

    if not _is_net(file):
        if solver_file is not None:
            raise click.UsageError(f"{file.name} is a solver itself: leave --solver out")
        return read_solver(file), file.parent
    param = read_solver(solver_file or find_solver(file))
    for field in ("net", "net_param", "train_net", "train_net_param"):
        param.ClearField(field)
    param.net = str(file)
    return param, file.parent


def _is_net(file: Path) -> bool:
    """Whether a prototxt is a net; its own error when it is neither a net nor a solver."""
    from port.prototxt import read_net, read_solver

    try:
        read_net(file)
    except PrototxtError as error:
        try:
            read_solver(file)
        except PrototxtError as solver_error:
            text = file.read_text(encoding="utf-8", errors="replace")
            raise (solver_error if "base_lr" in text else error) from None
        return False
    return True


def find_solver(net_file: Path) -> Path:
    """The solver beside a net: one that names it, one named after it, or the only one there.

    Raises SolverError when none of the three gives an answer.
    """
    from port.prototxt import read_solver

    solvers = {}
    for path in sorted(net_file.parent.glob("*.prototxt")):
        if path != net_file and b"base_lr" in path.read_bytes():
            solvers[path] = read_solver(path)
    for path, param in solvers.items():
        if net_file.name in (Path(param.net).name, Path(param.train_net).name):
            return path
    for word in ("train_val", "train_test", "train", "model"):
        named = net_file.with_name(net_file.name.replace(word, "solver"))
        if named in solvers:
            return named
    if len(solvers) == 1:
        return next(iter(solvers))
    found = ", ".join(path.name for path in solvers) or "none"
    raise SolverError(
        f"{net_file.name}: which solver? none beside it names it (found: {found}); "
        "give one with --solver"
    )


def _override(param: Any, options: dict[str, Any]) -> None:
    fields = {"max_iter": "max_iter", "base_lr": "base_lr", "display": "display"}
    for option, field in {**fields, "seed": "random_seed"}.items():
        if options[option] is not None:
            setattr(param, field, options[option])
    if options["out"] is not None:
        name = Path(param.snapshot_prefix).name or "snapshot"
        param.snapshot_prefix = str(options["out"] / name)


def _make(
    param: Any,
    folder: Path,
    sink: Callable[[str], None],
    on_iteration: Callable[[Progress], None] | None,
    options: dict[str, Any],
) -> Solver:
    from port import schema
    from port.prototxt import resolve
    from port.solver.log import Log
    from port.solver.memory import keep_freed_memory
    from port.solver.solver import Solver

    device = pick_device(options["device"], schema.enum_name(param, "solver_mode"))
    if device == "cpu":
        keep_freed_memory()
    net_folder = resolve(param.net, folder).parent if param.net else folder

    def edit(net: Any) -> None:
        override_data(net, options)
        if options["num_classes"]:
            set_num_classes(net, options["num_classes"], net_folder)

    names = ("gradient", "workers", "skip_bad", "restart_lambda", "allow_python")
    chosen = {name: options[name] for name in names}
    solver = Solver(
        param, device, folder=folder, log=Log(sink), on_iteration=on_iteration, edit=edit, **chosen
    )
    if options["weights"]:
        solver.load_weights(options["weights"])
    if options["snapshot"]:
        solver.restore(options["snapshot"])
    return solver


Reporting = tuple[Callable[[str], None], "Callable[[Progress], None] | None"]


@contextmanager
def _reporting(log_file: Path | None) -> Iterator[Reporting]:
    """Where log lines go, and what draws the bar: on a terminal, below the lines."""
    copy = log_file.open("a", encoding="utf-8", buffering=1) if log_file else None
    try:
        if sys.stderr.isatty():
            with _bar() as (show, on_iteration):
                yield _teed(show, copy), on_iteration
        else:
            yield _teed(lambda line: click.echo(line, err=True), copy), None
    finally:
        if copy is not None:
            copy.close()


def _teed(show: Callable[[str], None], copy: Any) -> Callable[[str], None]:
    def sink(line: str) -> None:
        show(line)
        if copy is not None:
            copy.write(line + "\n")

    return sink


@contextmanager
def _bar() -> Iterator[tuple[Callable[[str], None], Callable[[Progress], None]]]:
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    columns = (
        bars.MofNCompleteColumn(),
        bars.BarColumn(None),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
        bars.TextColumn("{task.description}"),
    )
    with bars.Progress(*columns, console=console) as display:
        task = display.add_task("", total=None)

        def on_iteration(state: Progress) -> None:
            shown = display.tasks[0]
            if shown.finished_time is None and display.get_time() - _last_drawn[0] < 0.25:
                display.update(task, completed=state.iteration, total=state.max_iter)
                return
            _last_drawn[0] = display.get_time()
            parts = [f"loss {state.loss:.4g}"]
            if state.lambda_ is not None:
                parts.append(f"λ {state.lambda_:.4g}")
            parts += [f"lr {state.lr:.3g}", f"{state.images_per_second:.0f} images/s"]
            described = "  ".join(parts)
            display.update(
                task, completed=state.iteration, total=state.max_iter, description=described
            )

        _last_drawn = [0.0]
        yield console.print, on_iteration
