"""``port extract``: the features of many pictures in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from port.commands.embedding import (
    FOLDER,
    check_writable,
    counting,
    listed,
    model_options,
    open_model,
)
from port.commands.options import EXISTING, HELP, add


@click.command(context_settings=HELP)
@click.argument("list_file", metavar="[LIST]", type=EXISTING, required=False)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The suffix says the format: .npy, .npz, .mat, .h5 or .lmdb.",
)
@click.option("--root", type=FOLDER, help="Folder that the list's paths start from.")
@click.option("--pairs", type=EXISTING, help="In place of LIST: the pictures of a pairs list.")
@click.option("--images", type=FOLDER, help="Folder of aligned faces that the pairs name.")
@add(model_options)
def extract(list_file: Path | None, out: Path, **options: Any) -> None:
    """Write the features of the pictures in LIST ('path label' lines; the label may be missing).

    Rows keep the order of the list. .npz, .mat and .h5 hold 'features' and 'files'; .lmdb is what
    Caffe's extract_features writes, a Datum for each row. With --pairs, a .mat holds the struct
    array that evaluation.m saves as pairs.mat. --no-flip leaves the mirror's half out.

    \b
    Examples:
      port extract list.txt -o features.npz --net deploy.prototxt --weights model.caffemodel
      port extract list.txt -o fc5.lmdb --onnx sphereface.onnx --no-flip
      port extract --pairs pairs.txt --images lfw-112x96 -o pairs.mat --onnx sphereface.onnx
    """
    if bool(list_file) == bool(options["pairs"]):
        raise click.UsageError("give LIST, or --pairs with --images")
    if bool(options["pairs"]) != bool(options["images"]):
        raise click.UsageError("--pairs and --images come together")
    from verify.features import check_suffix

    check_suffix(out)
    check_writable(out)
    write = _of_list if list_file else _of_pairs
    count, size = write(list_file or options["pairs"], out, options)
    click.echo(f"features of {count} pictures, {size} numbers each, written to {out}")


def _of_list(list_file: Path, out: Path, options: dict[str, Any]) -> tuple[int, int]:
    from verify.features import write_features

    images, paths = listed(list_file, options["root"])
    model = open_model(options)
    with counting("embedding") as progress:
        rows = model.embed(paths, progress)
    write_features(out, rows, images.names)
    return len(rows), rows.shape[1]


def _of_pairs(pairs_file: Path, out: Path, options: dict[str, Any]) -> tuple[int, int]:
    from verify.accuracy import find_images
    from verify.features import write_features, write_pairs_mat
    from verify.pairs import read_pairs

    pairs = read_pairs(pairs_file)
    paths = find_images(pairs, options["images"])
    model = open_model(options)
    with counting("embedding") as progress:
        rows = model.embed(list(paths.values()), progress)
    if out.suffix.lower() == ".mat":
        write_pairs_mat(out, pairs, dict(zip(paths, rows, strict=True)))
    else:
        write_features(out, rows, list(paths))
    return len(rows), rows.shape[1]
