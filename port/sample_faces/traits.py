"""What a sample face is made of: the fixed traits of a person, the mood of one picture."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np

Colour = tuple[float, float, float]

# Continuous traits: (low, high), uniform.
_TRAITS = {
    "head": (38.5, 46.0),
    "jaw": (0.52, 0.97),
    "chin": (44.0, 56.0),
    "eye_gap": (15.2, 20.4),
    "eye_y": (-17.0, -11.0),
    "eye_w": (5.0, 8.2),
    "eye_h": (1.9, 4.6),
    "eye_tilt": (-0.28, 0.28),
    "iris": (2.2, 3.6),
    "brow_gap": (5.5, 11.5),
    "brow_w": (6.0, 10.5),
    "brow_thick": (0.7, 2.9),
    "brow_tilt": (-0.32, 0.32),
    "brow_arch": (0.0, 3.2),
    "nose_y": (2.0, 10.5),
    "nose_w": (3.6, 9.4),
    "nose_tip": (0.0, 1.0),
    "mouth_y": (22.5, 30.0),
    "mouth_w": (9.5, 18.5),
    "lip_upper": (1.0, 3.6),
    "lip_lower": (1.4, 4.8),
    "hairline": (-50.0, -34.0),
    "skin": (0.0, 1.0),
    "warmth": (-1.0, 1.0),
    "lip_red": (0.0, 1.0),
    "ears": (3.0, 8.0),
}
_SKINS = np.array(
    [[196, 214, 243], [158, 186, 230], [112, 150, 204], [70, 104, 158], [40, 62, 104]]
)
_HAIRS = (
    (28, 26, 28),
    (38, 52, 78),
    (48, 84, 132),
    (92, 154, 204),
    (34, 70, 162),
    (168, 168, 172),
    (150, 190, 224),
)
_EYES = ((52, 74, 104), (150, 112, 62), (84, 124, 84), (34, 40, 52), (140, 140, 128))
# Hairlines, from the left temple to the right: (x / head width, offset of y from the hairline).
HAIRLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "bald": (),
    "short": ((-0.93, 22), (-0.8, 8), (-0.5, 0), (0, -2), (0.5, 0), (0.8, 8), (0.93, 22)),
    "fringe": ((-0.97, 30), (-0.85, 16), (-0.5, 13), (0, 14), (0.5, 13), (0.85, 16), (0.97, 30)),
    "left part": ((-0.95, 24), (-0.72, 6), (-0.42, -6), (0.1, 5), (0.55, 13), (0.95, 28)),
    "right part": ((-0.95, 28), (-0.55, 13), (-0.1, 5), (0.42, -6), (0.72, 6), (0.95, 24)),
    "peak": ((-0.9, 18), (-0.68, -2), (-0.4, -5), (0, 8), (0.4, -5), (0.68, -2), (0.9, 18)),
    "receding": (
        (-0.96, 24),
        (-0.86, 2),
        (-0.62, -14),
        (0, -10),
        (0.62, -14),
        (0.86, 2),
        (0.96, 24),
    ),
    "curtains": ((-1.0, 44), (-0.86, 24), (-0.45, 8), (0, -9), (0.45, 8), (0.86, 24), (1.0, 44)),
    "curly": ((-0.97, 24), (-0.8, 9), (-0.45, 4), (0, 2), (0.45, 4), (0.8, 9), (0.97, 24)),
}
_BEARDS = ("none", "none", "none", "none", "stubble", "full", "moustache", "goatee")
_GLASSES = ("none", "none", "none", "none", "round", "square")


@functools.lru_cache(maxsize=1024)
def draw_person(identity: int, seed: int) -> SimpleNamespace:
    """The fixed traits of one identity, a function of (seed, identity) alone."""
    rng = np.random.default_rng([seed, identity])
    values = {name: float(rng.uniform(*bounds)) for name, bounds in _TRAITS.items()}
    person = SimpleNamespace(**values)
    person.skin_colour = skin_colour(values["skin"], values["warmth"])
    hair = np.array(_HAIRS[rng.integers(len(_HAIRS))]) * rng.uniform(0.8, 1.2)
    person.hair_colour = tuple(np.clip(hair, 0, 255).tolist())
    person.brow_colour = tuple((0.7 * np.clip(hair, 0, 200)).tolist())
    person.eye_colour = _EYES[rng.integers(len(_EYES))]
    person.hair = str(rng.choice(list(HAIRLINES)))
    person.long = bool(rng.random() < 0.4) and person.hair not in ("bald", "receding")
    person.beard = str(rng.choice(_BEARDS))
    person.glasses = str(rng.choice(_GLASSES))
    person.frame = tuple(rng.uniform(10, 110, 3).tolist())
    person.freckles = rng.uniform((-24, -6), (24, 12), (26, 2)) if rng.random() < 0.2 else ()
    person.moles = rng.uniform((-28, -30), (28, 36), (int(rng.integers(0, 3)), 2))
    person.strands = rng.uniform(-1, 1, (7, 2))
    return person


def skin_colour(level: float, warmth: float) -> Colour:
    at = level * (len(_SKINS) - 1)
    low = min(int(at), len(_SKINS) - 2)
    colour = _SKINS[low] + (at - low) * (_SKINS[low + 1] - _SKINS[low])
    blue, green, red = colour * (1 - 0.06 * warmth, 1.0, 1 + 0.04 * warmth)
    return (blue, green, min(red, 255.0))


def draw_mood(rng: np.random.Generator) -> SimpleNamespace:
    """What changes from one picture of a person to the next."""
    yaw, pitch, roll = rng.normal(0, (0.26, 0.13, 0.12))
    return SimpleNamespace(
        yaw=float(np.clip(yaw, -0.55, 0.55)),
        pitch=float(np.clip(pitch, -0.3, 0.3)),
        roll=float(roll),
        jitter=rng.normal(0, 0.8, (5, 2)),
        open_eyes=float(rng.uniform(0.35, 1.15)),
        gaze=rng.uniform(-1.3, 1.3, 2),
        raise_brows=float(rng.normal(0, 1.4)),
        frown=float(rng.normal(0, 0.1)),
        open_mouth=float(max(0.0, rng.normal(-0.5, 3.2))),
        smile=float(rng.normal(0.8, 2.2)),
        light=rng.normal(0, 1, 2),
        strength=float(rng.uniform(0.1, 0.6)),
        gain=rng.uniform(0.65, 1.2) * rng.uniform(0.88, 1.12, 3),
        lift=float(rng.uniform(-25, 30)),
        gamma=float(rng.uniform(0.75, 1.35)),
        cloth=tuple(rng.uniform(20, 235, 3).tolist()),
        blur=float(rng.choice([0.0, 0.0, 0.5, 0.8, 1.1])),
        noise=float(rng.uniform(1.0, 9.0)),
        glasses_off=bool(rng.random() < 0.1),
        occlusion=str(rng.choice(["none"] * 7 + ["patch", "bar", "hand"])),
    )
