"""What Caffe's convert_imageset and compute_image_mean write.

Source: BVLC Caffe 1.0, tools/convert_imageset.cpp, tools/compute_image_mean.cpp, util/io.cpp.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from port import schema
from port.data.databases import new_database, open_database
from port.data.image_data import read_bytes, read_image
from port.data.image_list import ImageList, read_image_list
from port.data.randomness import entropy
from port.data.records import datum_planes, parse_datum
from port.data.transformer import dims
from port.errors import DataError

Array = NDArray[Any]


@dataclass(frozen=True)
class Options:
    """Flags of convert_imageset, by their names there.

    encode_type: "png", "jpg" …; empty with `encoded`: each file's own type, and files that are not
    resized go in byte for byte. seed concerns `shuffle`.
    """

    backend: str = "lmdb"
    gray: bool = False
    shuffle: bool = False
    resize_width: int = 0
    resize_height: int = 0
    check_size: bool = False
    encoded: bool = False
    encode_type: str = ""
    seed: int | None = None


@dataclass
class Converted:
    """What convert_imageset did: records written, and a message for each image left out."""

    count: int = 0
    skipped: list[str] = field(default_factory=list)


def convert_imageset(
    root: str,
    source: Path,
    database: Path,
    options: Options = Options(),
) -> Converted:
    """Writes the images of a list into a new database, as Caffe's tool of that name.

    root stands before the names as it is (give it its final slash). The keys are the line's
    number after shuffling, eight digits, and "_" + name; the records are Datum messages, raw
    (BGR or grey, C x H x W) or encoded. An image that cannot be read is left out and reported,
    its number is not used. Raises DataError for a bad list, sizes that differ with `check_size`,
    a database that exists, and when no image could be read; no half-written database stays.
    """
    if bool(options.resize_width) != bool(options.resize_height):
        raise DataError("resize_width and resize_height go together; give both or neither")
    images = read_image_list(source)
    done, writer = Converted(), new_database(database, options.backend)
    try:
        for key, datum in _records(root, images, options, done):
            writer.put(key, datum.SerializeToString())
            done.count += 1
        if not done.count:
            raise DataError(f"{source}: no image could be read; the first: {done.skipped[0]}")
    except BaseException:
        writer.close()
        shutil.rmtree(database, ignore_errors=True)
        raise
    writer.close()
    return done


def _records(
    root: str, images: ImageList, options: Options, done: Converted
) -> Iterator[tuple[bytes, Any]]:
    order = np.arange(len(images))
    if options.shuffle:
        order = np.random.default_rng(entropy(options.seed)).permutation(order)
    first = None
    for number, line in enumerate(order.tolist()):
        name = images.names[line]
        try:
            image = read_image(
                root + name, not options.gray, options.resize_height, options.resize_width
            )
        except DataError as error:
            done.skipped.append(f"{images.where(line)}: {error}")
            continue
        first = first or dims(image)
        if options.check_size and dims(image) != first:
            raise DataError(
                f"{images.where(line)}: the image is {dims(image)}, the first one {first} "
                "(channels, height, width); resize them, or leave out check_size"
            )
        key = f"{number:08d}_{name}".encode("utf-8", "surrogateescape")
        yield key, image_datum(root + name, image, int(images.labels[line]), options)


def image_datum(path: str, image: Array, label: int, options: Options) -> Any:
    """The Datum of an image file and its decoded pixels, as ReadImageToDatum makes it."""
    kind = options.encode_type
    if options.encoded and not kind:
        kind = _extension(path)
        if not kind:
            raise DataError(f"cannot guess the encoding of '{path}'; give encode_type")
    if not kind:
        return raw_datum(image.reshape(*image.shape[:2], -1).transpose(2, 0, 1), label)
    # The extension has its dot and a given encode_type has none, so a file goes in as it is only
    # when the type was guessed: that is how Caffe compares them.
    if kind.lower() == _extension(path) and not options.resize_height:
        return schema.Datum(data=read_bytes(path), label=label, encoded=True)
    return schema.Datum(data=_encode(image, kind), label=label, encoded=True)


def raw_datum(planes: Array, label: int) -> Any:
    """The Datum of uint8 pixels (C, H, W); `encoded` is stated, as Caffe states it."""
    channels, height, width = planes.shape
    return schema.Datum(
        channels=channels,
        height=height,
        width=width,
        data=np.ascontiguousarray(planes).tobytes(),
        label=label,
        encoded=False,
    )


def _extension(path: str) -> str:
    """``.jpg``: from the last dot on, lower case; empty without one."""
    dot = path.rfind(".")
    return path[dot:].lower() if dot >= 0 else ""


def _encode(image: Array, kind: str) -> bytes:
    try:
        return bytes(cv2.imencode("." + kind.lstrip("."), image)[1])
    except cv2.error as error:
        raise DataError(f"OpenCV cannot encode images as '{kind}'; try jpg or png") from error


def compute_mean(database: Path, backend: str = "lmdb") -> NDArray[np.float32]:
    """The mean (C, H, W) of a database's records, summed in float32 in the order of the keys.

    ``mean_file.write_mean`` writes it as compute_image_mean does. Raises DataError for an empty
    database, and for records of different sizes.
    """
    reader = open_database(database, backend)
    total: Any = None
    count = 0
    try:
        for key, value in reader.items():
            planes = _planes(database, key, value)
            if total is None:
                total = np.zeros(planes.shape, np.float32)
            if planes.shape != total.shape:
                raise DataError(
                    f"{database}: record '{key.decode(errors='replace')}' is {planes.shape}, the "
                    f"first one {total.shape} (channels, height, width); a mean needs one size"
                )
            total += planes
            count += 1
    finally:
        reader.close()
    if total is None:
        raise DataError(f"database {database} is empty")
    mean: NDArray[np.float32] = total / np.float32(count)
    return mean


def _planes(database: Path, key: bytes, value: bytes) -> Array:
    try:
        return datum_planes(parse_datum(value))
    except DataError as error:
        raise DataError(f"{database}: record '{key.decode(errors='replace')}': {error}") from error
