"""A diagram with a layout as SVG text, or as PNG through matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from io import BytesIO
from itertools import pairwise
from textwrap import wrap
from typing import NamedTuple

from port.drawing.diagram import Box, Diagram
from port.drawing.layout import Layout, Point, layout

FONT = "DejaVu Sans, Verdana, Geneva, sans-serif"
INK, FAINT, LINE, PAPER = "#222222", "#5a5a5a", "#8a8a8a", "#ffffff"
MARGIN, PAD, RADIUS = 24.0, 9.0, 5.0
NAME, KIND, SHAPE, BAR, HEADING = 12.0, 10.0, 10.0, 9.5, 15.0  # font sizes in pixels
_LINE_OF = 1.35  # line height over font size
_GLUE = "\N{NO-BREAK SPACE}"
_LONGEST = 42  # characters of a line of details
_NARROW, _WIDE = set("iIjl.,:;'|![]()ft /-"), set("mwMW@%")
LARGEST_PNG = 32000  # pixels a side; beyond 65535 no PNG can be drawn


class Rectangle(NamedTuple):
    """Left, top, width, height in pixels."""

    x: float
    y: float
    width: float
    height: float
    color: str
    tip: str = ""


class Text(NamedTuple):
    """A line of text centred at x, with its baseline at y."""

    x: float
    y: float
    words: str
    size: float
    color: str
    bold: bool = False


class Curve(NamedTuple):
    """An arrow through waypoints; it enters and leaves each of them vertically."""

    points: list[Point]


Shape = Rectangle | Text | Curve


class Picture(NamedTuple):
    """Shapes in painting order on a page of this size in pixels."""

    width: float
    height: float
    shapes: list[Shape]
    title: str


def picture_of(diagram: Diagram) -> Picture:
    """Lay out and paint a diagram."""
    sizes = [_size(box) for box in diagram.boxes]
    placed = layout(sizes, diagram.arrows)
    head = HEADING * _LINE_OF + MARGIN / 2
    width = max(placed.width, text_width(diagram.title, HEADING)) + 2 * MARGIN
    shift = ((width - placed.width) / 2, MARGIN + head)
    shapes: list[Shape] = [Text(width / 2, MARGIN + HEADING, diagram.title, HEADING, INK, True)]
    shapes += _arrows(placed, diagram, sizes, shift)
    for box, size, (x, y) in zip(diagram.boxes, sizes, placed.centres, strict=True):
        shapes += _paint(box, size, (x + shift[0], y + shift[1]))
    return Picture(width, placed.height + shift[1] + MARGIN, shapes, diagram.title)


def text_width(words: str, size: float) -> float:
    """About how wide a line is in DejaVu Sans; the writers do not measure fonts."""
    return size * sum(0.38 if c in _NARROW else 0.95 if c in _WIDE else 0.63 for c in words)


def _lines(box: Box) -> Iterator[tuple[str, float, str, bool]]:
    yield box.name, NAME, INK, True
    # A line breaks between fields, not between a field and its value.
    details = f"{box.kind} {box.detail}".strip().replace(" ", _GLUE).replace(f",{_GLUE}", ", ")
    for words in wrap(details, _LONGEST):
        yield words.replace(_GLUE, " "), KIND, INK, False
    for shape in box.shapes:
        yield shape, SHAPE, FAINT, False


def _size(box: Box) -> tuple[float, float]:
    lines = list(_lines(box))
    widths = [text_width(words, size) * (1.08 if bold else 1) for words, size, _, bold in lines]
    widths += [text_width(words, BAR) for words, _ in box.bars]
    height = sum(size * _LINE_OF for _, size, _, _ in lines) + PAD
    return max(widths) + 2 * PAD, height + len(box.bars) * _bar_height()


def _bar_height() -> float:
    return BAR * _LINE_OF + 4


def _paint(box: Box, size: tuple[float, float], centre: Point) -> Iterator[Shape]:
    (width, height), (x, y) = size, centre
    left, top = x - width / 2, y - height / 2
    yield Rectangle(left, top, width, height, box.color, box.source)
    baseline = top + PAD / 2
    for words, font, color, bold in _lines(box):
        baseline += font * _LINE_OF
        yield Text(x, baseline - 0.3 * font, words, font, color, bold)
    bottom = top + height - len(box.bars) * _bar_height()
    for i, (words, color) in enumerate(box.bars):
        start = bottom + i * _bar_height()
        yield Rectangle(left + 4, start - 3, width - 8, _bar_height() - 2, color, box.source)
        yield Text(x, start + _bar_height() - 9, words, BAR, INK)


def _arrows(
    placed: Layout, diagram: Diagram, sizes: list[tuple[float, float]], shift: Point
) -> Iterator[Curve]:
    """Arrows that end at one box end side by side, in the order in which they come."""
    coming: dict[int, list[int]] = {}
    for i, (_, target) in enumerate(diagram.arrows):
        coming.setdefault(target, []).append(i)
    for target, ends in coming.items():
        ends.sort(key=lambda i: placed.routes[i][-3][0])
        step = min(16.0, sizes[target][0] / (len(ends) + 1))
        for at, i in enumerate(ends):
            route, aside = placed.routes[i], (at - (len(ends) - 1) / 2) * step
            points = route[:-2] + [(x + aside, y) for x, y in route[-2:]]
            yield Curve([(x + shift[0], y + shift[1]) for x, y in points])


# -- writing -------------------------------------------------------------------------------


def to_svg(picture: Picture) -> str:
    """The picture as an SVG document; resting on a box shows its prototxt."""
    writers = {Rectangle: _svg_rectangle, Text: _svg_text, Curve: _svg_curve}
    size = f'width="{picture.width:.0f}" height="{picture.height:.0f}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
        f'viewBox="0 0 {picture.width:.1f} {picture.height:.1f}" font-family="{FONT}">',
        f"<title>{escape(picture.title)}</title>",
        f'<rect width="100%" height="100%" fill="{PAPER}"/>',
    ]
    body = [writers[type(shape)](shape) for shape in picture.shapes]  # type: ignore[operator]
    return "\n".join([*head, *body, "</svg>", ""])


def _svg_rectangle(shape: Rectangle) -> str:
    tip = f"<title>{escape(shape.tip)}</title>" if shape.tip else ""
    return (
        f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" '
        f'height="{shape.height:.1f}" rx="{RADIUS}" fill="{shape.color}" '
        f'stroke="{LINE}" stroke-width="0.8">{tip}</rect>'
    )


def _svg_text(shape: Text) -> str:
    weight = ' font-weight="bold"' if shape.bold else ""
    return (
        f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" text-anchor="middle" pointer-events="none" '
        f'font-size="{shape.size}" fill="{shape.color}"{weight}>{escape(shape.words)}</text>'
    )


def _svg_curve(shape: Curve) -> str:
    start, *rest = _bezier(shape.points)
    path = f"M{start[0]:.1f} {start[1]:.1f}" + "".join(
        "C" + " ".join(f"{x:.1f} {y:.1f}" for x, y in rest[i : i + 3])
        for i in range(0, len(rest), 3)
    )
    head = " ".join(f"{x:.1f},{y:.1f}" for x, y in _head(shape.points[-1]))
    return (
        f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.3"/>'
        f'<polygon points="{head}" fill="{LINE}"/>'
    )


def _bezier(points: list[Point]) -> list[Point]:
    """Cubic pieces through the points, vertical at each; start, then three points a piece."""
    found = [points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        if (x0, y0) == (x1, y1):
            continue
        half = (y0 + y1) / 2
        found += [(x0, half), (x1, half), (x1, y1)]
    return found


def _head(tip: Point) -> list[Point]:
    x, y = tip
    return [(x, y), (x - 3.5, y - 7), (x + 3.5, y - 7)]


def to_png(picture: Picture, scale: float = 2.0) -> bytes:
    """The picture as a PNG file, ``scale`` image pixels for each of its own.

    Nets too long for a PNG are drawn smaller.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scale = min(scale, LARGEST_PNG / max(picture.width, picture.height))
    figure = Figure((picture.width / 72, picture.height / 72), dpi=72 * scale, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, picture.width)
    axes.set_ylim(picture.height, 0)
    for shape in picture.shapes:
        _draw(axes, shape)
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw(axes: object, shape: Shape) -> None:
    from matplotlib.patches import FancyBboxPatch, Patch, PathPatch, Polygon
    from matplotlib.path import Path as Outline

    if isinstance(shape, Text):
        weight = "bold" if shape.bold else "normal"
        axes.text(  # type: ignore[attr-defined]
            shape.x, shape.y, shape.words, size=shape.size, color=shape.color, weight=weight,
            ha="center", va="baseline", family="DejaVu Sans", parse_math=False,
        )  # fmt: skip
        return
    if isinstance(shape, Rectangle):
        style = f"round,pad=0,rounding_size={min(RADIUS, shape.height / 3)}"
        patches: list[Patch] = [
            FancyBboxPatch(
                (shape.x, shape.y), shape.width, shape.height, boxstyle=style,
                facecolor=shape.color, edgecolor=LINE, linewidth=0.8,
            )
        ]  # fmt: skip
    else:
        points = _bezier(shape.points)
        codes = [Outline.MOVETO] + [Outline.CURVE4] * (len(points) - 1)
        outline = Outline(points, codes)
        patches = [
            PathPatch(outline, facecolor="none", edgecolor=LINE, linewidth=1.3),
            Polygon(_head(shape.points[-1]), closed=True, facecolor=LINE),
        ]
    for patch in patches:
        axes.add_patch(patch)  # type: ignore[attr-defined]
