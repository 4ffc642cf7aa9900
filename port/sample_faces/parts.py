"""The parts of a sample face, drawn from the back to the front."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

from port.sample_faces.pen import Floats, Pen, oval, shaded, surface
from port.sample_faces.traits import HAIRLINES, skin_colour


def landmarks(person: SimpleNamespace, mood: SimpleNamespace) -> Floats:
    """The five points on the head, (5, 3)."""
    mouth = person.mouth_y + 0.35 * mood.open_mouth
    half = person.mouth_w + 0.5 * mood.smile
    corner = mouth - 0.6 * mood.smile
    gap, eye = person.eye_gap, person.eye_y
    flat = np.array([[-gap, eye], [gap, eye], [0, person.nose_y], [-half, corner], [half, corner]])
    marks = surface(flat, 0.0)
    marks[2, 2] += 11.0
    return marks


def draw_head(pen: Pen, person: SimpleNamespace, mood: SimpleNamespace) -> None:
    """Long hair behind, shoulders, neck, ears and the head itself."""
    width, skin = person.head, person.skin_colour
    if person.long:
        behind = np.array([[-1.25, -30], [-1, -66], [1, -66], [1.25, -30], [1.3, 75], [-1.3, 75]])
        pen.fill_solid(np.column_stack([behind * (width, 1), [-8.0] * 6]), person.hair_colour)
    neck = np.array([[-20, 30, -12], [20, 30, -12], [24, 90, -12], [-24, 90, -12]], float)
    pen.fill_solid(neck, shaded(skin, 0.72))
    cloth = np.array([[-90, 68, -14], [-24, 58, -14], [24, 58, -14], [90, 68, -14], [0, 120, -14]])
    pen.fill_solid(cloth.astype(float), mood.cloth)
    for side in (-1, 1):
        ear = oval(side * (width + 0.4 * person.ears), -6, person.ears, 9)
        pen.fill_solid(np.column_stack([ear, np.full(len(ear), -6.0)]), shaded(skin, 0.86))
    outline = _outline(person)
    front = surface(0.84 * outline, 0.0)
    pen.hull(np.vstack([np.column_stack([outline, np.zeros(40)]), front]), skin)


def _outline(person: SimpleNamespace) -> Floats:
    """The head's outline, (40, 2): an oval whose lower half is squared towards the jaw."""
    x, y = oval(0, 0, 1, 1, points=40).T
    low = np.maximum(y, 0)
    squared = np.sign(x) * np.abs(x) ** (1 - 0.55 * person.jaw * low)
    x = np.where(y > 0, squared * (1 - 0.42 * (1 - person.jaw) * low), x)
    return np.column_stack([x * person.head, np.where(y > 0, y * person.chin, y * 64)])


def draw_eyes(pen: Pen, person: SimpleNamespace, mood: SimpleNamespace) -> None:
    skin, height = person.skin_colour, max(0.5, person.eye_h * mood.open_eyes)
    for side in (-1, 1):
        x, y, tilt = side * person.eye_gap, person.eye_y, side * person.eye_tilt
        pen.fill(oval(x, y - 0.8, person.eye_w * 1.25, person.eye_h * 1.5, tilt), shaded(skin, 0.9))
        pen.fill(oval(x, y, person.eye_w, height, tilt), (226, 230, 232))
        iris = min(person.iris, height + 0.4)
        gx, gy = x + mood.gaze[0], y + 0.5 * mood.gaze[1]
        pen.fill(oval(gx, gy, person.iris, iris), person.eye_colour)
        pen.fill(oval(gx, gy, 0.45 * person.iris, 0.45 * iris, points=8), (18, 16, 16))
        pen.fill(oval(gx - 0.8, gy - 0.8, 0.6, 0.5, points=6), (240, 240, 240))
        pen.line(oval(x, y, person.eye_w, height, tilt)[8:], shaded(skin, 0.3), 2)


def draw_brows(pen: Pen, person: SimpleNamespace, mood: SimpleNamespace) -> None:
    y = person.eye_y - person.brow_gap - mood.raise_brows
    along = np.linspace(-1, 1, 7)
    for side in (-1, 1):
        tilt = person.brow_tilt + mood.frown
        middle = y - person.brow_arch * (1 - along**2) - tilt * person.brow_w * along
        x = side * (person.eye_gap + person.brow_w * along)
        thick = person.brow_thick * (1.1 - 0.5 * along)
        upper, lower = np.column_stack([x, middle - thick]), np.column_stack([x, middle + thick])
        pen.fill(np.vstack([upper, lower[::-1]]), person.brow_colour, 1.0)


def draw_nose(pen: Pen, person: SimpleNamespace) -> None:
    skin, width, y = person.skin_colour, person.nose_w, person.nose_y
    base, tip = surface(np.array([[-width, y + 2], [width, y + 2], [0, y + 3.5]]), 3.0), 11.0
    bridge = surface(
        np.array([[-0.16 * width - 1, person.eye_y], [0.16 * width + 1, person.eye_y]]), 5
    )
    end = np.array(
        [[-0.4 * width, y, base[2, 2] + tip - 3], [0.4 * width, y, base[2, 2] + tip - 3]]
    )
    pen.fill_solid(np.vstack([bridge[0], base[0], base[2], end[0]]), shaded(skin, 0.82))
    pen.fill_solid(np.vstack([bridge[1], base[1], base[2], end[1]]), shaded(skin, 0.86))
    ball = oval(0, y - 0.5, 0.5 * width, 2.2 + 1.4 * person.nose_tip, points=12)
    pen.fill(ball, shaded(skin, 1.07), tip - 2)
    pen.fill_solid(np.vstack([bridge[0], bridge[1], end[1], end[0]]), shaded(skin, 1.05))
    for side in (-1, 1):
        pen.fill(
            oval(side * 0.5 * width, y + 2.6, 0.24 * width, 1.1, points=8), shaded(skin, 0.4), 5
        )


def draw_mouth(pen: Pen, person: SimpleNamespace, mood: SimpleNamespace) -> None:
    skin = np.array(person.skin_colour)
    lips = 0.55 * skin + (0.45 - 0.25 * person.lip_red) * np.array([70, 70, 165])
    half, gap = person.mouth_w + 0.5 * mood.smile, mood.open_mouth
    along = np.linspace(-1, 1, 9)
    bow, x = 1 - along**2, half * np.linspace(-1, 1, 9)
    line = person.mouth_y + 0.35 * gap + 0.6 * mood.smile * (bow - 1)
    top, bottom = line - 0.35 * gap * bow, line + 0.65 * gap * bow
    dip = 0.5 * np.exp(-((along / 0.18) ** 2))
    upper = top - person.lip_upper * (bow - dip)
    lower = bottom + person.lip_lower * bow
    band = [(upper, top, 0.86), (bottom, lower, 1.0)]
    if gap > 0.6:
        pen.fill(_strip(x, top, bottom), (38, 26, 58), 2)
        pen.fill(_strip(x * 0.8, top, np.minimum(bottom, top + 1.6)), (222, 226, 228), 2)
    for above, below, factor in band:
        pen.fill(_strip(x, above, below), shaded(lips.tolist(), factor), 2)
    pen.line(np.column_stack([x, top]), shaded(lips.tolist(), 0.5), 2)


def _strip(x: Floats, above: Floats, below: Floats) -> Floats:
    return np.vstack([np.column_stack([x, above]), np.column_stack([x, below])[::-1]])


def draw_beard(pen: Pen, person: SimpleNamespace) -> None:
    skin, hair = np.array(person.skin_colour), np.array(person.brow_colour)
    y = person.mouth_y
    if person.beard in ("stubble", "full"):
        mix = 0.3 if person.beard == "stubble" else 0.85
        outline = _outline(person)
        jaw = outline[outline[:, 1] > -2]
        inner = np.array([[-0.62, y - 6], [0.62, y - 6]]) * (person.head, 1)
        colour = (skin + mix * (hair - skin)).tolist()
        pen.fill_solid(
            np.column_stack([np.vstack([jaw, inner]), np.full(len(jaw) + 2, 8.0)]), colour
        )
    if person.beard in ("moustache", "full"):
        pen.fill(oval(0, y - 5.2, person.mouth_w * 0.95, 2.4), hair.tolist(), 2)
    if person.beard == "goatee":
        pen.fill(oval(0, y + 11, person.mouth_w * 0.7, 9), hair.tolist(), 1)


def draw_marks(pen: Pen, person: SimpleNamespace) -> None:
    for x, y in person.freckles:
        pen.fill(oval(x, y, 0.8, 0.7, points=6), shaded(person.skin_colour, 0.78))
    for x, y in person.moles:
        pen.fill(oval(x, y, 1.5, 1.4, points=8), shaded(person.skin_colour, 0.35))


def draw_hair(pen: Pen, person: SimpleNamespace) -> None:
    line = np.array(HAIRLINES[person.hair])
    if not len(line):
        return
    width = person.head
    edge = line * (width, 1) + (0, person.hairline)
    start = math.asin(min(1.0, max(-1.0, (edge[0, 1] + 4) / 66)))
    angle = np.linspace(math.pi - start, 2 * math.pi + start, 17)
    crown = np.column_stack([1.06 * width * np.cos(angle), -4 + 66 * np.sin(angle)])
    at = np.linspace(0, len(edge) - 1, len(crown))
    low = np.column_stack([np.interp(at, np.arange(len(edge)), column) for column in edge.T])
    pen.band(np.column_stack([crown, np.zeros(17)]), surface(low, 3.0), person.hair_colour)
    if person.hair == "curly":
        for x, y in np.vstack([edge, edge - (0, 9), crown]):
            pen.fill_solid(np.column_stack([oval(x, y, 7, 6.5), [8.0] * 16]), person.hair_colour)
    for start, end in person.strands:
        strand = np.array(
            [[0.4 * start * width, -58], [0.85 * start * width, person.hairline - 6 + 3 * end]]
        )
        pen.line(strand, shaded(person.hair_colour, 0.72 if end < 0 else 1.3), 3)
    if person.long:
        for side in (-1.0, 1.0):
            lock = np.array(
                [[1.08, -44], [0.9, -20], [0.95, 10], [0.92, 70], [1.35, 70], [1.3, -20]]
            )
            pen.fill_solid(
                np.column_stack([lock * (side * width, 1), [4.0] * 6]), person.hair_colour
            )


def draw_glasses(pen: Pen, person: SimpleNamespace) -> None:
    points = 20 if person.glasses == "round" else 4
    radius = (11.0, 9.5) if points == 20 else (14.5, 10.5)
    for side in (-1, 1):
        ring = oval(side * person.eye_gap, person.eye_y + 1, *radius, points=points)
        if points == 4:
            ring = ring[0] * 0 + np.array([[-12, -7.5], [12, -7.5], [11, 8], [-11, 8]])
            ring = ring * (side, 1) + (side * person.eye_gap, person.eye_y + 1)
        pen.line(ring, person.frame, 3, closed=True)
    bridge = np.array(
        [[-person.eye_gap + 11, person.eye_y - 1], [person.eye_gap - 11, person.eye_y - 1]]
    )
    pen.line(bridge, person.frame, 3)


def draw_occlusion(pen: Pen, kind: str, rng: np.random.Generator) -> None:
    colour = rng.uniform(10, 245, 3).tolist()
    if kind == "patch":
        x, y, angle = rng.uniform(-30, 30), rng.uniform(-40, 45), rng.uniform(0, 3)
        box = oval(x, y, rng.uniform(12, 22), rng.uniform(12, 22), angle, points=4)
        pen.fill_solid(np.column_stack([box, [50.0] * 4]), colour)
    elif kind == "bar":
        y = rng.uniform(-20, -10)
        bar = np.array(
            [[-34, y - 7], [34, y - 7], [32, y + 7], [4, y + 6], [-4, y + 6], [-32, y + 7]]
        )
        pen.fill(bar, shaded(colour, 0.3), 6)
    else:
        x, tone = rng.uniform(-26, 26), skin_colour(float(rng.random()), 0.0)
        for finger in range(4):
            shape = oval(x + 7.5 * finger - 11, 34 + 3 * abs(finger - 1.5), 4.2, 22, 0.1)
            pen.fill_solid(
                np.column_stack([shape, [50.0] * 16]), shaded(tone, 0.85 + 0.06 * finger)
            )
