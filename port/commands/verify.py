"""``port verify``: the accuracy of a face model on a list of pairs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from port.commands.embedding import (
    FEATURES,
    FOLDER,
    NEW_FILE,
    check_writable,
    counting,
    model_options,
    open_model,
    require_one_source,
)
from port.commands.options import EXISTING, HELP, add

if TYPE_CHECKING:
    from verify.accuracy import Verification

TOLERANCE = 0.10


@click.command(context_settings=HELP)
@click.option("--pairs", type=EXISTING, help="List of pairs, as LFW's pairs.txt.")
@click.option("--images", type=FOLDER, help="Folder of aligned faces that the pairs name.")
@click.option("--bin", "bin_file", type=EXISTING, help="InsightFace's .bin set: pairs and images.")
@click.option(
    "--features",
    type=FEATURES,
    help="Features by 'port extract' or the original's pairs.mat, in place of a model.",
)
@click.option(
    "--list",
    "list_file",
    type=EXISTING,
    help="Image list that --features was made from, where it stores no names (.npy, .lmdb).",
)
@click.option("--no-mean-subtraction", is_flag=True, help="Leave embeddings where they are.")
@click.option("--pooled-threshold", is_flag=True, help="One threshold, found on all pairs.")
@click.option("--expect", type=click.FloatRange(0, 100), help="Accuracy, in percent, to be met.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    help=f"Points that the accuracy may be off --expect [default: {TOLERANCE:.2f}].",
)
@click.option("--report", type=NEW_FILE, metavar="PAGE", help="Write an HTML report there.")
@click.option("--json", "json_file", type=NEW_FILE, metavar="FILE", help="Write the numbers there.")
@add(model_options)
def verify(report: Path | None, json_file: Path | None, **options: Any) -> None:
    """Measure verification accuracy as SphereFace's evaluation.m does, to the digit.

    Each picture and its mirror are embedded once. For each of ten folds the other nine give mean
    and threshold. Pictures larger than the net's input are cut to their centre. With --expect the
    exit code is 1 where the accuracy is not met. --flip sum, --no-flip, --no-mean-subtraction and
    --pooled-threshold are what others do; the result then says so.

    \b
    Examples:
      port verify --net sphereface_deploy.prototxt --weights sphereface_model.caffemodel \\
        --pairs pairs.txt --images lfw-112x96 --expect 99.30 --report lfw.html
      port verify --onnx sphereface.onnx --bin cfp_fp.bin
      port verify --features pairs.mat --pairs pairs.txt
    """
    _check_usage(options)
    check_writable(report, json_file)
    found, files = (_by_features if options["features"] else _by_model)(options)
    if options["expect"] is not None:
        tolerance = TOLERANCE if options["tolerance"] is None else options["tolerance"]
        found = replace(found, expected=(options["expect"], tolerance))
    click.echo(found.fold_table())
    click.echo(found.summary())
    _write(found, files, report, json_file)
    if found.passed is False:
        sys.exit(1)


def _check_usage(options: dict[str, Any]) -> None:
    require_one_source(options)
    if bool(options["bin_file"]) == bool(options["pairs"]):
        raise click.UsageError("give --pairs with --images, or --bin")
    if options["bin_file"] and (options["images"] or options["features"]):
        raise click.UsageError("--bin holds pairs and images: no --images or --features with it")
    if options["pairs"] and not options["features"] and not options["images"]:
        raise click.UsageError("--pairs: name the folder of the faces with --images")
    if options["list_file"] and not options["features"]:
        raise click.UsageError("--list goes with --features")
    if options["tolerance"] is not None and options["expect"] is None:
        raise click.UsageError("--tolerance goes with --expect")


Found = tuple["Verification", dict[str, Path]]


def _by_model(options: dict[str, Any]) -> Found:
    from verify.accuracy import find_images, verify_pairs
    from verify.insightface import read_bin
    from verify.pairs import read_pairs

    source = options["bin_file"] or options["pairs"]
    images: Any = read_bin(source) if options["bin_file"] else options["images"]
    pairs = images.pairs if options["bin_file"] else read_pairs(source)
    if not options["bin_file"]:
        find_images(pairs, images)  # a missing picture is told before the model is loaded
    model = open_model(options)
    with counting("embedding") as progress:
        found = verify_pairs(
            pairs,
            images,
            model.forward,
            model.shape,
            progress=progress,
            **model.keywords(),
            **_variants(options),
        )
    return found, {**model.files, "pairs": source}


def _by_features(options: dict[str, Any]) -> Found:
    from port.data.image_list import read_image_list
    from verify.accuracy import find_images, verify_embeddings
    from verify.features import for_pairs, read_features
    from verify.pairs import read_pairs

    pairs = read_pairs(options["pairs"])
    names = read_image_list(options["list_file"]).names if options["list_file"] else None
    stored = for_pairs(read_features(options["features"], names), pairs)
    images = find_images(pairs, options["images"]) if options["images"] else None
    found = verify_embeddings(pairs, stored, images=images, **_variants(options))
    return found, {"features": options["features"], "pairs": options["pairs"]}


def _variants(options: dict[str, Any]) -> dict[str, Any]:
    return {
        "subtract_mean": not options["no_mean_subtraction"],
        "pooled_threshold": options["pooled_threshold"],
    }


def _write(
    found: Verification, files: dict[str, Path], report: Path | None, json_file: Path | None
) -> None:
    from verify.report import write_html, write_json

    if json_file is not None:
        write_json(found, json_file, files)
    if report is not None:
        model = files.get("weights") or files.get("onnx") or files["features"]
        write_html(found, report, files, f"Verification: {model.name} on {files['pairs'].name}")
    for path in filter(None, (json_file, report)):
        click.echo(f"written to {path}")
