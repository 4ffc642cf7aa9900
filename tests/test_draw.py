"""``port draw``: the layout's promises, and the files it writes."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree
from itertools import combinations, pairwise
from pathlib import Path

import cv2
import pytest
from command_line import ROOT, port

from port.drawing.diagram import diagram_of
from port.drawing.layout import GAP_DOWN, layout
from port.drawing.picture import Curve, Rectangle, Text, picture_of, text_width, to_svg
from port.net import load_net

REFERENCE = ROOT / "reference_prototxt"
INCEPTION = """
name: "inception"
input: "data" input_dim: 1 input_dim: 12 input_dim: 28 input_dim: 28
layer { name: "1x1" type: "Convolution" bottom: "data" top: "1x1"
  convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "relu_1x1" type: "ReLU" bottom: "1x1" top: "1x1" }
layer { name: "reduce" type: "Convolution" bottom: "data" top: "reduce"
  convolution_param { num_output: 6 kernel_size: 1 } }
layer { name: "3x3" type: "Convolution" bottom: "reduce" top: "3x3"
  convolution_param { num_output: 8 kernel_h: 3 kernel_w: 1 pad_h: 1 pad_w: 0 } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool"
  pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 } }
layer { name: "output" type: "Concat" bottom: "1x1" bottom: "3x3" bottom: "pool" top: "out" }
"""
NETS = {
    "sphereface_deploy": str(REFERENCE / "sphereface_deploy.prototxt"),
    "sphereface_4_model": str(REFERENCE / "sphereface_4_model.prototxt"),
    "det3": str(REFERENCE / "det3.prototxt"),
    "inception": INCEPTION,
}


def drawn(name: str):
    """(diagram, picture) of one of the nets."""
    net = load_net(NETS[name], phase="TRAIN", open_data=False, input_shape=(3, 112, 96))
    diagram = diagram_of(net)
    return diagram, picture_of(diagram)


# -- what is in it --------------------------------------------------------------------------


def test_a_box_says_what_a_layer_does() -> None:
    boxes = {box.name: box for box in drawn("inception")[0].boxes}
    assert list(boxes) == ["input", "1x1", "reduce", "3x3", "pool", "output"]
    shown = {name: (box.kind, box.detail.replace("\N{MULTIPLICATION SIGN}", "x"))
             for name, box in boxes.items()}  # fmt: skip
    assert shown["1x1"] == ("Convolution", "1x1")
    assert shown["3x3"] == ("Convolution", "3x1, pad 1x0")
    assert shown["pool"] == ("Pooling", "3x3, pad 1, MAX")
    assert [text for text, _ in boxes["1x1"].bars] == ["relu_1x1  ReLU"]
    assert boxes["input"].shapes == ["data: 1 × 12 × 28 × 28"]  # noqa: RUF001
    assert boxes["output"].shapes == ["out: 1 × 24 × 28 × 28"]  # noqa: RUF001
    assert boxes["reduce"].shapes == ["1 × 6 × 28 × 28"]  # noqa: RUF001
    assert "num_output: 8" in boxes["3x3"].source


def test_arrows_are_the_nets_own() -> None:
    """Splits that Caffe inserts are not drawn; a blob that changed in place comes from its box."""
    diagram, _ = drawn("inception")
    names = [box.name for box in diagram.boxes]
    assert [(names[a], names[b]) for a, b in diagram.arrows] == [
        ("input", "1x1"), ("input", "reduce"), ("reduce", "3x3"), ("input", "pool"),
        ("1x1", "output"), ("3x3", "output"), ("pool", "output"),
    ]  # fmt: skip


# -- where it is ----------------------------------------------------------------------------


def boxes_of(picture) -> list[Rectangle]:
    """The rectangles that are no bars: those that no other one holds."""
    shapes = [shape for shape in picture.shapes if isinstance(shape, Rectangle)]
    return [one for one in shapes if not any(holds(other, one) for other in shapes)]


def holds(outer: Rectangle, inner: Rectangle) -> bool:
    return outer != inner and (
        outer.x <= inner.x
        and outer.y <= inner.y
        and inner.x + inner.width <= outer.x + outer.width
        and inner.y + inner.height <= outer.y + outer.height
    )


def apart(one: Rectangle, two: Rectangle) -> bool:
    return (
        one.x + one.width < two.x
        or two.x + two.width < one.x
        or one.y + one.height < two.y
        or two.y + two.height < one.y
    )


@pytest.mark.parametrize("name", NETS)
def test_nothing_overlaps_and_everything_is_on_the_page(name: str) -> None:
    diagram, picture = drawn(name)
    boxes = boxes_of(picture)
    assert len(boxes) == len(diagram.boxes)
    assert all(apart(one, two) for one, two in combinations(boxes, 2))
    for box in boxes:
        assert 0 < box.x < box.x + box.width < picture.width
        assert 0 < box.y < box.y + box.height < picture.height
    for text in picture.shapes:
        if isinstance(text, Text):
            half = text_width(text.words, text.size) / 2
            assert 0 < text.x - half < text.x + half < picture.width


@pytest.mark.parametrize("name", NETS)
def test_arrows_go_down_and_past_other_boxes(name: str) -> None:
    diagram, picture = drawn(name)
    boxes = boxes_of(picture)
    curves = [shape for shape in picture.shapes if isinstance(shape, Curve)]
    assert len(curves) == len(diagram.arrows)
    for curve in curves:
        heights = [y for _, y in curve.points]
        assert all(lower > upper - 0.001 for upper, lower in pairwise(heights))
        assert any(abs(box.y + box.height - heights[0]) < 0.01 for box in boxes)
        assert any(abs(box.y - heights[-1]) < 0.01 for box in boxes)
        for x, y in curve.points[1:-1]:
            inside = [
                box
                for box in boxes
                if box.x < x < box.x + box.width and box.y + 0.01 < y < box.y + box.height - 0.01
            ]
            assert not inside


def test_the_trunk_of_a_residual_net_is_one_straight_line() -> None:
    _, picture = drawn("sphereface_deploy")
    centres = {round(box.x + box.width / 2, 3) for box in boxes_of(picture)}
    assert len(centres) == 1


def test_layout_of_random_graphs() -> None:
    """No two boxes of a rank nearer than the gap, whatever the graph."""
    rng = random.Random(0)
    for _ in range(20):
        count = rng.randint(1, 25)
        sizes = [(rng.uniform(20, 200), rng.uniform(20, 90)) for _ in range(count)]
        arrows = [(a, b) for a, b in combinations(range(count), 2) if rng.random() < 0.12]
        found = layout(sizes, arrows)
        for (one, two), (first, second) in zip(
            combinations(found.centres, 2), combinations(sizes, 2), strict=True
        ):
            across = abs(one[0] - two[0]) - (first[0] + second[0]) / 2
            down = abs(one[1] - two[1]) - (first[1] + second[1]) / 2
            assert across > -1e-6 or down >= GAP_DOWN - 1e-6
        for arrow, route in zip(arrows, found.routes, strict=True):
            assert route[0][0] == found.centres[arrow[0]][0]
            assert route[-1][0] == found.centres[arrow[1]][0]
        assert found == layout(sizes, arrows)


# -- files -----------------------------------------------------------------------------------


def test_svg_is_well_formed_and_says_everything(tmp_path: Path) -> None:
    out = tmp_path / "net.svg"
    said = port("draw", REFERENCE / "sphereface_deploy.prototxt", "-o", out).stdout
    assert said == f"written to {out}: 58 layers\n"
    root = ElementTree.parse(out).getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"SpherefaceNet-20", "conv1_1", "relu1_1  PReLU", "res4_3", "fc5"} <= texts
    tips = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any('name: "relu4_3"' in tip for tip in tips)


def test_names_with_markup_are_only_names() -> None:
    text = INCEPTION.replace('name: "pool"', 'name: "<b>&amp;"')
    svg = to_svg(picture_of(diagram_of(load_net(text))))
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    assert "<b>&amp;" in [element.text for element in texts]


def test_png_shows_the_same_page(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(INCEPTION)
    out = tmp_path / "net.png"
    port("draw", tmp_path / "net.prototxt", "-o", out)
    image = cv2.imread(str(out))
    _, picture = drawn("inception")
    assert abs(image.shape[0] - 2 * picture.height) <= 2
    assert abs(image.shape[1] - 2 * picture.width) <= 2
    for box in boxes_of(picture):  # a corner of each box has its colour
        blue, green, red = image[round(2 * box.y + 14), round(2 * box.x + 6)]
        assert f"#{red:02x}{green:02x}{blue:02x}" == box.color
    assert (image < 80).any(), "black letters"


def test_refusals(tmp_path: Path) -> None:
    net = REFERENCE / "det1.prototxt"
    assert ".svg or .png" in port("draw", net, "-o", tmp_path / "net.pdf", code=2).stderr
    for name in ("net.svg", "net.png"):
        said = port("draw", net, "-o", tmp_path / "no" / name, code=1).stderr
        assert said.startswith("error: ")
        assert "cannot be written" in said
