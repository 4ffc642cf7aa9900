"""One picture: background, parts, light."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import numpy.typing as npt

from port.sample_faces import parts
from port.sample_faces.pen import Floats, Pen, rotation
from port.sample_faces.traits import draw_mood, draw_person

Pixels = npt.NDArray[np.uint8]


def _background(shape: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """A blurred pattern, (H, W, 3)."""
    tone = rng.uniform(20, 225) + rng.normal(0, 28, 3)
    small = tone + rng.normal(0, 28, (4, 4, 1)) + rng.normal(0, 14, (4, 4, 3))
    blocks = np.clip(small, 0, 255).astype(np.uint8)
    large = cv2.resize(blocks, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return large.astype(np.uint8, copy=False)


def _light(image: Pixels, mood: SimpleNamespace, rng: np.random.Generator) -> Pixels:
    """Light from one side, colour cast, blur and noise; (H, W, 3) in and out."""
    rows, columns = image.shape[:2]
    u = (np.arange(columns, dtype=np.float32) / columns - 0.5) * 2.0
    v = (np.arange(rows, dtype=np.float32)[:, None] / rows - 0.6) * 1.8
    round_off = np.sqrt(np.maximum(1.3 - u * u - v * v, 0.02)) - 0.9
    across, down = mood.light / (np.hypot(*mood.light) + 1e-6)
    slope = np.float32(across) * u + np.float32(down) * v + 0.6 * round_off
    shade = np.clip(1 + np.float32(mood.strength) * slope, 0.15, 1.8)
    if mood.blur:
        image = cv2.GaussianBlur(image, (0, 0), mood.blur).astype(np.uint8)
    grain = rng.standard_normal((rows, columns, 1), np.float32) * np.float32(mood.noise)
    curve = (255 * (np.arange(256) / 255.0) ** mood.gamma).astype(np.float32)
    lit = curve[image] * shade[..., None] * mood.gain.astype(np.float32) + (mood.lift + grain)
    finished: Pixels = np.clip(lit + 0.5, 0, 255).astype(np.uint8)
    return finished


def render(
    identity: int, sample: int, seed: int = 0, size: tuple[int, int] = (112, 96)
) -> tuple[Pixels, Floats]:
    """One aligned face of an identity, the same for the same arguments.

    Returns:
        image: (H, W, 3) uint8, BGR.
        landmarks: (5, 2) float64, x and y in pixels counted from 0: left eye, right eye, nose tip,
            left and right corner of the mouth, as seen in the picture.
    """
    person, rng = draw_person(identity, seed), np.random.default_rng([seed, identity, sample, 1])
    mood = draw_mood(rng)
    turn = rotation(mood.yaw, mood.pitch, mood.roll)
    pen = Pen(size, turn, parts.landmarks(person, mood), mood.jitter)
    background = _background(pen.shape, rng)
    parts.draw_head(pen, person, mood)
    parts.draw_marks(pen, person)
    parts.draw_beard(pen, person)
    parts.draw_nose(pen, person)
    parts.draw_mouth(pen, person, mood)
    parts.draw_eyes(pen, person, mood)
    parts.draw_brows(pen, person, mood)
    parts.draw_hair(pen, person)
    if person.glasses != "none" and not mood.glasses_off:
        parts.draw_glasses(pen, person)
    if mood.occlusion != "none":
        parts.draw_occlusion(pen, mood.occlusion, rng)
    small = cv2.resize(pen.finish(background), (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return _light(small.astype(np.uint8, copy=False), mood, rng), pen.marks
