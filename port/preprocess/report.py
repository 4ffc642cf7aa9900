"""A page to look at: what became of the photographs, their crops, and the failures."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import NamedTuple

from port.errors import DataError
from port.preprocess.manifest import OK, Record, count, read_manifest

LARGEST_FACES, LARGEST_FAILURES = 400, 200
"""So many pictures go into a page; of more, evenly spaced ones."""

_DOUBTFUL = 24  # faces of the lowest scores, shown apart
_THUMBNAIL = 112  # pixels of the longer side of a photograph

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0 }
td, th { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: left }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.sheet { display: flex; flex-wrap: wrap; gap: 12px 8px }
figure { margin: 0; width: 112px }
.picture { height: 112px; display: flex; align-items: center; justify-content: center;
  background: #f4f4f4; margin-bottom: 2px }
img { display: block; max-width: 112px }
figcaption { font-size: 11px; line-height: 1.3; color: #555; overflow-wrap: anywhere }
figcaption strong { display: block; color: #222; font-weight: 600; overflow: hidden;
  white-space: nowrap; text-overflow: ellipsis }
</style></head><body>
<h1>{{ title }}</h1>
<table><tr><th>Status</th><th>Images</th></tr>
{% for status, number in counts %}<tr><td>{{ status }}</td><td class="n">{{ number }}</td></tr>
{% endfor %}<tr><th>all</th><td class="n">{{ total }}</td></tr></table>
{% if several %}<p>Images with more than one face: {{ several }}. The face nearest the centre was
taken.</p>{% endif %}
{% if empty %}<h2>Identities without a face ({{ empty|length }})</h2>
<p>{{ empty|join(", ") }}</p>{% endif %}
{% for heading, items, number in sections if number %}
<h2>{{ heading }} ({{ items|length }}{% if items|length < number %} of {{ number }}{% endif %})</h2>
<div class="sheet">
{% for item in items %}<figure title="{{ item.file }}"><div class="picture">
{%- if item.picture %}<img alt="" src="{{ item.picture }}">{% endif %}</div>
<figcaption>{% if item.folder %}<strong>{{ item.folder }}</strong>{% endif %}{{ item.name }}
{%- if item.note %}<br>{{ item.note }}{% endif %}</figcaption></figure>
{% endfor %}</div>
{% endfor %}
</body></html>
"""


def write_report(manifest: Path, images: Path, page: Path, as_stored: bool = False) -> Path:
    """Writes an HTML contact sheet of a manifest's faces and failures; it needs no other file.

    Crops are looked for beside the manifest, photographs below `images`; a face that was only
    detected is shown in its photograph.
    Raises DataError when the manifest cannot be read or the page cannot be written.
    """
    import jinja2

    records = read_manifest(manifest)
    sheet = _Sheet(images, manifest.parent, as_stored)
    environment = jinja2.Environment(autoescape=True)
    text = environment.from_string(_PAGE).render(
        title=f"Faces of {Path(os.path.abspath(images)).name}",
        counts=count(records).most_common(),
        total=len(records),
        several=sum(record.get("faces", 0) > 1 for record in records),
        empty=_identities_without_face(records),
        sections=[
            sheet.section("Failures", _failures(records), LARGEST_FAILURES),
            sheet.section("Lowest scores", _doubtful(records), _DOUBTFUL),
            sheet.section("Faces", [r for r in records if r["status"] == OK], LARGEST_FACES),
        ],
    )
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, "utf-8", errors="backslashreplace")
    except OSError as error:
        raise DataError(f"{page}: cannot write the report: {error.strerror}") from error
    return page


def _identities_without_face(records: list[Record]) -> list[str]:
    everyone = {record["file"].rpartition("/")[0] for record in records}
    return sorted(everyone - {r["file"].rpartition("/")[0] for r in records if r["status"] == OK})


def _thinned(records: list[Record], most: int) -> list[Record]:
    if len(records) <= most:
        return records
    return [records[i * len(records) // most] for i in range(most)]


def _failures(records: list[Record]) -> list[Record]:
    return [record for record in records if record["status"] != OK]


def _doubtful(records: list[Record]) -> list[Record]:
    scored = [record for record in records if "score" in record]
    if len(scored) <= _DOUBTFUL:
        return []
    return sorted(scored, key=lambda record: float(record["score"]))[:_DOUBTFUL]


class _Sheet(NamedTuple):
    """Where pictures come from."""

    images: Path
    results: Path
    as_stored: bool

    def section(
        self, heading: str, records: list[Record], most: int
    ) -> tuple[str, list[dict[str, str]], int]:
        """Heading, what is shown, and how many there are."""
        return heading, [self._item(record) for record in _thinned(records, most)], len(records)

    def _item(self, record: Record) -> dict[str, str]:
        folder, _, name = record["file"].rpartition("/")
        # Photographs often repeat their folder's name, which would push their number out of sight.
        short = f"…{name[len(folder) :]}" if folder and name.startswith(f"{folder}_") else name
        note = f"score {record['score']:.4f}" if "score" in record else ""
        if record["status"] != OK:
            note = ": ".join(filter(None, (record["status"], record.get("reason"))))
        return {
            "file": record["file"],
            "folder": folder,
            "name": short,
            "note": note,
            "picture": self._picture(record),
        }

    def _picture(self, record: Record) -> str:
        if "crop" not in record:
            return _thumbnail(self.images / record["file"], record.get("box"), self.as_stored)
        crop = self.results / record["crop"]
        try:
            return _embedded(crop.read_bytes(), "png" if crop.suffix == ".png" else "jpeg")
        except OSError:
            return ""


def _embedded(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _thumbnail(path: Path, box: list[float] | None, as_stored: bool) -> str:
    """The photograph made small, with the face's box (x1, y1, x2, y2) where there is one."""
    import cv2

    from port.preprocess.images import read_image

    try:
        image = read_image(path, as_stored)
    except DataError:
        return ""
    scale = min(1.0, _THUMBNAIL / max(image.shape[:2]))
    size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if box is not None:
        x1, y1, x2, y2 = (round((corner - 1) * scale) for corner in box)
        cv2.rectangle(small, (x1, y1), (x2, y2), (60, 230, 60), 1)
    _, data = cv2.imencode(".jpg", small[..., ::-1])
    return _embedded(data.tobytes(), "jpeg")
