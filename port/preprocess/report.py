"""A page to look at: what became of the photographs, their crops, and the failures."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from port.errors import DataError
from port.preprocess.manifest import OK, Record, count, read_manifest

LARGEST_CROPS, LARGEST_FAILURES = 400, 200
"""So many pictures go into a page; of more, evenly spaced ones."""

_THUMBNAIL = 96  # pixels of the longer side of a failed photograph

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0 }
td, th { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: left }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.sheet { display: flex; flex-wrap: wrap; gap: 6px }
figure { margin: 0; width: 96px }
img { display: block; max-width: 96px }
.none { height: 60px; background: #eee }
figcaption { font-size: 10px; overflow-wrap: anywhere; color: #555 }
</style></head><body>
<h1>{{ title }}</h1>
<table><tr><th>Status</th><th>Images</th></tr>
{% for status, number in counts %}<tr><td>{{ status }}</td><td class="n">{{ number }}</td></tr>
{% endfor %}<tr><th>all</th><td class="n">{{ total }}</td></tr></table>
{% if several %}<p>{{ several }} images hold more than one face; the one nearest the centre was
taken.</p>{% endif %}
{% if empty %}<h2>Identities without a face ({{ empty|length }})</h2>
<p>{{ empty|join(", ") }}</p>{% endif %}
{% for heading, items, number in sections if number %}
<h2>{{ heading }} ({{ items|length }}{% if items|length < number %} of {{ number }}{% endif %})</h2>
<div class="sheet">
{% for item in items %}<figure>{% if item.picture %}<img alt="" src="{{ item.picture }}">
{%- else %}<div class="none"></div>{% endif %}
<figcaption>{{ item.file }}{% if item.note %}<br>{{ item.note }}{% endif %}</figcaption></figure>
{% endfor %}</div>
{% endfor %}
</body></html>
"""


def write_report(manifest: Path, images: Path, page: Path, as_stored: bool = False) -> Path:
    """Writes an HTML contact sheet of a manifest's crops and failures; it needs no other file.

    Crops are looked for beside the manifest, failed photographs below `images`.
    Raises DataError when the manifest cannot be read or the page cannot be written.
    """
    import jinja2

    records = read_manifest(manifest)
    environment = jinja2.Environment(autoescape=True)
    text = environment.from_string(_PAGE).render(
        title=f"Faces of {images.name}",
        counts=count(records).most_common(),
        total=len(records),
        several=sum(record.get("faces", 0) > 1 for record in records),
        empty=_identities_without_face(records),
        sections=[
            _failures([r for r in records if r["status"] != OK], images, as_stored),
            _crops([r for r in records if "crop" in r], manifest.parent),
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


_Section = tuple[str, list[dict[str, Any]], int]


def _crops(records: list[Record], beside: Path) -> _Section:
    items = [
        {
            "file": record["file"],
            "note": f"score {record['score']:.3f}" if "score" in record else "",
            "picture": _embedded(beside / record["crop"]),
        }
        for record in _thinned(records, LARGEST_CROPS)
    ]
    return "Crops", items, len(records)


def _embedded(crop: Path) -> str:
    try:
        data = crop.read_bytes()
    except OSError:
        return ""
    kind = "png" if crop.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _failures(records: list[Record], images: Path, as_stored: bool) -> _Section:
    items = [
        {
            "file": record["file"],
            "note": ": ".join(filter(None, (record["status"], record.get("reason")))),
            "picture": _thumbnail(images / record["file"], as_stored),
        }
        for record in _thinned(records, LARGEST_FAILURES)
    ]
    return "Failures", items, len(records)


def _thumbnail(path: Path, as_stored: bool) -> str:
    import cv2

    from port.preprocess.images import read_image

    try:
        image = read_image(path, as_stored)
    except DataError:
        return ""
    scale = min(1.0, _THUMBNAIL / max(image.shape[:2]))
    size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small[..., ::-1])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
