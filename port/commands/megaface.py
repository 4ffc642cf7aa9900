"""``port megaface``: identification among many strangers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from port.commands.embedding import (
    FEATURES,
    FOLDER,
    Model,
    counting,
    listed,
    model_options,
    numbers,
    open_model,
    require_one_source,
    rows_of_list,
)
from port.commands.options import EXISTING, HELP, add

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Block = npt.NDArray[np.float32]


@click.command(context_settings=HELP)
@click.argument("probes", type=EXISTING)
@click.option(
    "--distractors",
    type=FEATURES,
    required=True,
    help="Pictures of strangers: an image list, or a features file (.npy, .h5, .lmdb …).",
)
@click.option("--root", type=FOLDER, help="Folder that the lists' paths start from.")
@click.option("--features", type=FEATURES, help="Features of the probes, in place of a model.")
@click.option(
    "--sizes",
    callback=numbers(int, "10,100,1000"),
    metavar="NUMBERS",
    default="10,100,1000,10000,100000,1000000",
    show_default=True,
    help="Numbers of distractors to report.",
)
@add(model_options)
def megaface(probes: Path, distractors: Path, sizes: tuple[int, ...], **options: Any) -> None:
    """Find each person's other picture among N strangers: MegaFace's challenge 1.

    PROBES is a list of 'path label' lines, people with two pictures or more. For each ordered pair
    of pictures of one person, one is the probe and the other hides among the first N distractors;
    the trial succeeds when it is nearer to the probe than all of them. Distractors are read once
    and in blocks: a million of them take no more memory than a thousand.

    \b
    Examples:
      port megaface facescrub.txt --distractors megaface.txt --onnx sphereface.onnx
      port megaface facescrub.txt --features probes.npz --distractors megaface.npy
    """
    from verify.features import SUFFIXES
    from verify.quality import rank1_with_distractors

    require_one_source(options)
    from_file = distractors.suffix.lower() in SUFFIXES
    if options["features"] and not from_file:
        raise click.UsageError("--features: the distractors are to be a features file as well")
    model = None if options["features"] else open_model(options)
    rows, labels = rows_of_list(probes, options, options["features"], model)
    blocks = _stored(distractors) if from_file else _embedded(distractors, options, model)
    found = rank1_with_distractors(rows, labels, blocks, sizes)
    click.echo("distractors\trank-1")
    for result in found:
        click.echo(f"{result.distractors}\t{100 * result.rate:.2f}%")
    left_out = [
        str(size) for size in sizes if size > max((r.distractors for r in found), default=0)
    ]
    if left_out:
        click.echo(f"too few distractors for {', '.join(left_out)}", err=True)


def _stored(path: Path) -> Iterator[Block]:
    from verify.features import stream_features
    from verify.quality import BLOCK

    return stream_features(path, BLOCK)


def _embedded(list_file: Path, options: dict[str, Any], model: Model | None) -> Iterator[Block]:
    from verify.quality import BLOCK

    assert model is not None
    _, paths = listed(list_file, options["root"])
    with counting(list_file.name) as progress:
        for at in range(0, len(paths), BLOCK):
            yield model.embed(paths[at : at + BLOCK])
            progress(min(at + BLOCK, len(paths)), len(paths))
