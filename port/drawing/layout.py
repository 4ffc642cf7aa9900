"""Where boxes and arrows of a layered picture go: ranks, order in a rank, coordinates.

Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System Structures"
(1981); x coordinates as the linear program of Gansner et al., "A Technique for Drawing Directed
Graphs" (1993).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Size = tuple[float, float]
Point = tuple[float, float]
Arrow = tuple[int, int]

GAP_ACROSS, GAP_DOWN = 26.0, 34.0  # pixels between boxes of a rank, and between ranks
_LANE = 12.0  # width of an arrow that passes a rank
_SWEEPS = 12


@dataclass
class Layout:
    """Centres of the boxes, waypoints of each arrow from top to bottom, size of the picture.

    The first two and the last two waypoints are at a box and at the edge of its rank.
    """

    centres: list[Point]
    routes: list[list[Point]]
    width: float
    height: float


@dataclass
class _Layers:
    """Nodes (boxes, then the lanes of long arrows) by rank, and the pieces of the arrows."""

    rank: list[int]
    width: list[float]
    pieces: list[Arrow]
    chains: list[list[int]]
    """For each arrow its nodes from end to end."""
    rows: list[list[int]]
    boxes: int


def layout(sizes: Sequence[Size], arrows: Sequence[Arrow]) -> Layout:
    """Place boxes of ``sizes`` (width, height); every arrow goes from a lower to a higher index."""
    layers = _with_lanes(sizes, arrows)
    _order(layers)
    across = _across(layers, _spine(len(sizes), arrows))
    tops, bottoms = _rows_down(layers, sizes)
    middle = [(tops[rank] + bottoms[rank]) / 2 for rank in layers.rank]
    left = min(x - w / 2 for x, w in zip(across, layers.width, strict=True))
    across = [x - left for x in across]
    centres = list(zip(across, middle, strict=True))[: len(sizes)]
    routes = [
        _route(chain, layers, across, sizes, middle, (tops, bottoms)) for chain in layers.chains
    ]
    right = max(x + w / 2 for x, w in zip(across, layers.width, strict=True))
    return Layout(centres, routes, right, bottoms[-1])


def _ranks(count: int, arrows: Sequence[Arrow]) -> list[int]:
    """Longest way from a start; a start without company stands right above its first reader."""
    rank = [0] * count
    for source, target in sorted(arrows, key=lambda arrow: arrow[1]):
        rank[target] = max(rank[target], rank[source] + 1)
    targets = {target for _, target in arrows}
    for node in range(count):
        readers = [rank[target] for source, target in arrows if source == node]
        if node not in targets and readers:
            rank[node] = min(readers) - 1
    return rank


def _with_lanes(sizes: Sequence[Size], arrows: Sequence[Arrow]) -> _Layers:
    rank = _ranks(len(sizes), arrows)
    layers = _Layers(rank, [width for width, _ in sizes], [], [], [], len(sizes))
    for source, target in arrows:
        chain = [source]
        for level in range(rank[source] + 1, rank[target]):
            chain.append(len(rank))
            rank.append(level)
            layers.width.append(_LANE)
        chain.append(target)
        layers.chains.append(chain)
        layers.pieces += pairwise(chain)
    layers.rows = [[] for _ in range(max(rank) + 1)]
    for node, level in enumerate(rank):
        layers.rows[level].append(node)
    return layers


def _order(layers: _Layers) -> None:
    """Sort each row by the mean place of its neighbours, down and up, keeping the best order."""
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for source, target in layers.pieces:
        below.setdefault(source, []).append(target)
        above.setdefault(target, []).append(source)
    best, fewest = [list(row) for row in layers.rows], _crossings(layers.rows, below)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        rows = layers.rows if down else layers.rows[::-1]
        for fixed, free in pairwise(rows):
            place = {node: at for at, node in enumerate(fixed)}
            _sort(free, place, above if down else below)
        found = _crossings(layers.rows, below)
        if found < fewest:
            best, fewest = [list(row) for row in layers.rows], found
    layers.rows = best


def _sort(free: list[int], place: dict[int, int], neighbours: dict[int, list[int]]) -> None:
    """Nodes without neighbours keep their place among the others."""
    key = {}
    for at, node in enumerate(free):
        near = [place[other] for other in neighbours.get(node, [])]
        key[node] = sum(near) / len(near) if near else float(at)
    free.sort(key=lambda node: key[node])


def _crossings(rows: list[list[int]], below: dict[int, list[int]]) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        place = {node: at for at, node in enumerate(lower)}
        ends = [at for node in upper for at in sorted(place[t] for t in below.get(node, []))]
        total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    return total


def _spine(count: int, arrows: Sequence[Arrow]) -> set[Arrow]:
    """The arrows of one longest way through the net, which are drawn straight.

    Where more than two ways part or meet none is the main one, and the box stands in their middle.
    """
    length, back = [0] * count, [-1] * count
    for source, target in sorted(arrows, key=lambda arrow: arrow[1]):
        if length[source] + 1 > length[target]:
            length[target], back[target] = length[source] + 1, source
    node = max(range(count), key=lambda each: length[each])
    leaving = Counter(source for source, _ in arrows)
    coming = Counter(target for _, target in arrows)
    spine = set()
    while back[node] >= 0:
        if leaving[back[node]] <= 2 and coming[node] <= 2:
            spine.add((back[node], node))
        node = back[node]
    return spine


def _across(layers: _Layers, spine: set[Arrow]) -> list[float]:
    """x of each node: least weighted sum of the arrows' sideways steps, rows kept apart."""
    import numpy as np
    from scipy.optimize import linprog
    from scipy.sparse import coo_matrix

    nodes, pieces = len(layers.rank), layers.pieces
    entries: list[tuple[int, int, float]] = []
    limits: list[float] = []
    for i, (source, target) in enumerate(pieces):
        for sign in (1.0, -1.0):
            row = len(limits)
            entries += [(row, source, sign), (row, target, -sign), (row, nodes + i, -1.0)]
            limits.append(0.0)
    for line in layers.rows:
        for left, right in pairwise(line):
            row = len(limits)
            entries += [(row, left, 1.0), (row, right, -1.0)]
            limits.append(-((layers.width[left] + layers.width[right]) / 2 + GAP_ACROSS))
    weights = [_weight(layers, piece, spine) for piece in pieces]
    if not entries:
        return [0.0] * nodes
    rows, columns, values = zip(*entries, strict=True)
    matrix = coo_matrix((values, (rows, columns)), (len(limits), nodes + len(pieces)))
    found = linprog(np.array([0.0] * nodes + weights), A_ub=matrix.tocsr(), b_ub=limits)
    return [float(x) for x in found.x[:nodes]]


def _weight(layers: _Layers, piece: Arrow, spine: set[Arrow]) -> float:
    lanes = sum(node >= layers.boxes for node in piece)
    return 20.0 if piece in spine else (1.0, 2.0, 8.0)[lanes]


def _rows_down(layers: _Layers, sizes: Sequence[Size]) -> tuple[list[float], list[float]]:
    """Upper and lower edge of each rank."""
    tops, bottoms, y = [], [], 0.0
    for row in layers.rows:
        tops.append(y)
        y += max((sizes[node][1] for node in row if node < layers.boxes), default=0.0)
        bottoms.append(y)
        y += GAP_DOWN
    return tops, bottoms


def _route(
    chain: list[int],
    layers: _Layers,
    across: list[float],
    sizes: Sequence[Size],
    middle: list[float],
    edges: tuple[list[float], list[float]],
) -> list[Point]:
    """From the lower edge of a box, straight past other boxes, to the upper edge of the next."""
    first, last = chain[0], chain[-1]
    points = [(across[first], middle[first] + sizes[first][1] / 2)]
    points.append((across[first], edges[1][layers.rank[first]]))
    for lane in chain[1:-1]:
        rank = layers.rank[lane]
        points += [(across[lane], edges[0][rank]), (across[lane], edges[1][rank])]
    points.append((across[last], edges[0][layers.rank[last]]))
    points.append((across[last], middle[last] - sizes[last][1] / 2))
    return points
