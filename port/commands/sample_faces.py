"""``port sample-faces``: a rendered set to try things on."""

from __future__ import annotations

from pathlib import Path

import click

from port.commands.options import HELP


@click.command("sample-faces", context_settings=HELP)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--identities", type=click.IntRange(1), default=120, show_default=True)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Pictures of each identity.",
)
@click.option(
    "--held-out",
    type=click.IntRange(20),
    default=60,
    show_default=True,
    help="Identities that only the pairs show.",
)
@click.option("--seed", type=int, default=0, show_default=True)
def sample_faces(folder: Path, identities: int, samples: int, held_out: int, seed: int) -> None:
    """Write rendered 112x96 faces, a training list and verification pairs into FOLDER.

    The faces are drawn by the port itself: identities with pose, light, expression and
    occlusion. The same seed gives the same pictures.

    \b
    Examples:
      port sample-faces faces
      port sample-faces more --identities 500 --samples 30 --seed 1
    """
    from port.sample_faces import write_set

    found = write_set(folder, identities, samples, seed, held_out)
    click.echo(f"{found.images} pictures of {identities} + {held_out} identities in {folder}")
    click.echo(f"train on {found.train_list}, verify with {found.pairs}")
