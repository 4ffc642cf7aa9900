"""Angular Fisher score, angles and identification against direct evaluations of their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from port.errors import DataError
from verify import quality


def clusters(people: int = 12, each: int = 5, spread: float = 0.4, seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((people, 16))
    labels = np.repeat(np.arange(people), each)
    return centres[labels] + spread * rng.standard_normal((people * each, 16)), labels


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_angular_fisher_score_is_the_papers_formula() -> None:
    rows, labels = clusters()
    labels = labels * 3 + 5  # labels need not count from 0
    within = between = 0.0
    for name in set(labels):
        own = rows[labels == name]
        within += sum(1 - cosine(x, own.mean(0)) for x in own)
        between += len(own) * (1 - cosine(own.mean(0), rows.mean(0)))
    ours = quality.angular_fisher_score(rows, labels)
    assert ours == pytest.approx(within / between, rel=1e-12)
    assert ours < quality.angular_fisher_score(*clusters(spread=0.8))


def test_mean_angles_are_over_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "BLOCK", 7)
    rows, labels = clusters()
    angles: dict[bool, list[float]] = {True: [], False: []}
    for i in range(len(rows)):
        for j in range(i):
            angle = np.degrees(np.arccos(cosine(rows[i], rows[j])))
            angles[bool(labels[i] == labels[j])].append(angle)
    ours = quality.mean_angles(rows, labels)
    assert ours.intra == pytest.approx(np.mean(angles[True]), rel=1e-9)
    assert ours.inter == pytest.approx(np.mean(angles[False]), rel=1e-9)


def test_identification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "BLOCK", 7)
    rows, labels = clusters(spread=1.0)
    gallery, probes = rows[::5], rows[np.arange(len(rows)) % 5 != 0]
    truth = labels[np.arange(len(rows)) % 5 != 0]
    nearest = [max(range(12), key=lambda k: cosine(gallery[k], probe)) for probe in probes]
    expected = np.mean(np.array(nearest) == truth)
    assert quality.identify(gallery, labels[::5], probes, truth) == pytest.approx(expected)
    assert 0.2 < expected < 1.0


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_rank_1_among_distractors(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(quality, "BLOCK", 50)
    rows, labels = clusters(spread=1.0)
    strangers = np.random.default_rng(9).standard_normal((600, 16))
    stream = (strangers[at : at + block] for at in range(0, 600, block))
    ours = quality.rank1_with_distractors(rows, labels, stream, (3, 100, 600, 5000))
    assert [entry.distractors for entry in ours] == [3, 100, 600]
    trials = [
        (cosine(a, b), a)
        for i, a in enumerate(rows)
        for j, b in enumerate(rows)
        if i != j and labels[i] == labels[j]
    ]
    for entry in ours[:2]:
        others = strangers[: entry.distractors]
        won = [mate > max(cosine(probe, other) for other in others) for mate, probe in trials]
        assert entry.rate == pytest.approx(np.mean(won))
    assert ours[0].rate >= ours[1].rate >= ours[2].rate


def test_the_stream_is_not_read_beyond_the_largest_size() -> None:
    rows, labels = clusters()
    drawn = 0

    def stream() -> object:
        nonlocal drawn
        while True:
            drawn += 1
            yield np.random.default_rng(drawn).standard_normal((10, 16))

    quality.rank1_with_distractors(rows, labels, stream(), (10, 20))  # type: ignore[arg-type]
    assert drawn <= 3


def test_a_tie_is_no_success() -> None:
    probes, labels = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), [0, 0, 1]
    (entry,) = quality.rank1_with_distractors(probes, labels, [probes[1:2]], (1,))
    assert entry.rate == 0.0


def test_what_cannot_be_measured() -> None:
    rows, labels = clusters()
    with pytest.raises(DataError, match="one class only"):
        quality.angular_fisher_score(rows, np.zeros(len(rows), int))
    with pytest.raises(DataError, match="no class has two embeddings"):
        quality.mean_angles(rows, np.arange(len(rows)))
    with pytest.raises(DataError, match="no person has two probes"):
        quality.rank1_with_distractors(rows, np.arange(len(rows)), [rows])
    with pytest.raises(DataError, match="60 embeddings but labels of shape"):
        quality.mean_angles(rows, labels[1:])
    with pytest.raises(DataError, match="distractors have 8 dimensions, the probes 16"):
        quality.rank1_with_distractors(rows, labels, [rows[:, :8]])
    rows[4] = 0
    with pytest.raises(DataError, match=r"embedding 4 \(of 60\) holds NaN"):
        quality.angular_fisher_score(rows, labels)
    with pytest.raises(DataError, match="each embedding of gallery and probes has one label"):
        quality.identify(rows[:3], [1, 2], rows[:3], [1, 2, 3])
