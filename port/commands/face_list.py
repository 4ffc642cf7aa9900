"""``port list``: the training list of a folder of aligned faces."""

from __future__ import annotations

from pathlib import Path

import click

from port.commands.options import HELP, add
from port.commands.photographs import FOLDER, NEW_FILE, exclude_options, excluded_names


@click.command("list", context_settings=HELP)
@click.argument("folder", type=FOLDER)
@click.option("-o", "--out", type=NEW_FILE, required=True, metavar="FILE", help="The list.")
@add(exclude_options)
@click.option(
    "--suffix",
    multiple=True,
    default=(".jpg",),
    show_default=True,
    metavar=".EXT",
    help="Files to list, with their case; may be given several times.",
)
def face_list(
    folder: Path, out: Path, exclude: tuple[str, ...], no_exclude: bool, suffix: tuple[str, ...]
) -> None:
    """Write the training list of FOLDER/identity/image, as SphereFace's get_list.m does.

    A line is an absolute path, a space and the identity's number from 0, in the order of the
    folders' names. Three people of CASIA-WebFace who are also in LFW are left out.

    \b
    Examples:
      port list faces/crops -o list.txt
      port list faces/crops -o list.txt --exclude n000123 --suffix .png --suffix .jpg
    """
    from port.preprocess.face_list import write_face_list

    suffixes = tuple(each if each.startswith(".") else f".{each}" for each in suffix)
    done = write_face_list(folder, out, excluded_names(exclude, no_exclude), suffixes)
    say_list(out, done.images, done.identities, done.excluded, done.empty)


def say_list(
    out: Path, images: int, identities: int, excluded: list[str], empty: list[str]
) -> None:
    """One line on a list, and on who is not in it."""
    click.echo(f"list:     {out}: {images} images of {identities} identities")
    if excluded:
        click.echo(f"left out: {', '.join(excluded)}")
    if empty:
        named = ", ".join(empty[:10]) + (" …" if len(empty) > 10 else "")
        click.echo(f"numbered, but without an image ({len(empty)}): {named}", err=True)
