"""``port quality``: how well embeddings separate people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from port.commands.embedding import (
    FEATURES,
    FOLDER,
    model_options,
    open_model,
    require_one_source,
    rows_of_list,
)
from port.commands.options import EXISTING, HELP, add

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Rows = npt.NDArray[np.float32]
    Labels = npt.NDArray[np.int64]


@click.command(context_settings=HELP)
@click.argument("list_file", metavar="LIST", type=EXISTING)
@click.option("--root", type=FOLDER, help="Folder that the list's paths start from.")
@click.option("--features", type=FEATURES, help="Features of LIST, in place of a model.")
@click.option(
    "--gallery",
    type=EXISTING,
    help="List of the gallery: all of LIST are probes then [default: each person's first picture].",
)
@click.option("--gallery-features", type=FEATURES, help="Features of the gallery's list.")
@add(model_options)
def quality(list_file: Path, **options: Any) -> None:
    """Measure how well a model separates the people of LIST ('path label' lines).

    Prints the angular Fisher score of the SphereFace paper (appendix E; lower is better), the mean
    angle between pictures of one person and of two, and the rank-1 rate of 1:N identification.

    \b
    Examples:
      port quality list.txt --net deploy.prototxt --weights sphereface_model.caffemodel
      port quality probes.txt --gallery gallery.txt --onnx sphereface.onnx
      port quality list.txt --features features.npz
    """
    require_one_source(options)
    features, stored = options["features"], options["gallery_features"]
    if bool(stored) != bool(features and options["gallery"]):
        raise click.UsageError("--gallery-features goes with --gallery and --features")
    from verify.quality import angular_fisher_score, identify, mean_angles

    model = None if features else open_model(options)
    rows, labels = rows_of_list(list_file, options, features, model)
    angles = mean_angles(rows, labels)
    people = len(set(labels.tolist()))
    click.echo(f"{len(rows)} pictures of {people} people, {rows.shape[1]} dimensions")
    click.echo(f"angular Fisher score {angular_fisher_score(rows, labels):.4f}")
    click.echo(f"mean angle within people {angles.intra:.2f} degrees")
    click.echo(f"mean angle between people {angles.inter:.2f} degrees")
    if options["gallery"]:
        gallery, names = rows_of_list(options["gallery"], options, stored, model)
        probes, truth = rows, labels
    else:
        gallery, names, probes, truth = first_as_gallery(rows, labels)
    rate = identify(gallery, names, probes, truth)
    click.echo(
        f"rank-1 identification {100 * rate:.2f} % ({len(probes)} probes, {len(gallery)} in the "
        "gallery)"
    )


def first_as_gallery(rows: Rows, labels: Labels) -> tuple[Rows, Labels, Rows, Labels]:
    """Gallery: the first picture of each person; probes: the others of people with several."""
    import numpy as np

    first = np.zeros(len(rows), bool)
    first[np.unique(labels, return_index=True)[1]] = True
    return rows[first], labels[first], rows[~first], labels[~first]
