"""What a NetParameter means before any layer exists: which layers belong, and the splits.

Source: BVLC Caffe 1.0, src/caffe/net.cpp (FilterNet, StateMeetsRule) and
src/caffe/util/insert_splits.cpp. The automatically inserted Split layers do no arithmetic
here, but they are part of Caffe's caffemodels, logs and debug output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from port import schema
from port.errors import NetError, close_matches


def filter_net(net: Any, phase: str, level: int, stages: Sequence[str]) -> Any:
    """A copy of ``net`` with only the layers whose include/exclude rules admit this state."""
    kept = schema.NetParameter()
    kept.CopyFrom(net)
    kept.state.phase = schema.enum("Phase", phase)
    kept.state.level = level
    del kept.state.stage[:]
    kept.state.stage.extend(stages)
    del kept.layer[:]
    for layer in net.layer:
        if _included(layer, kept.state):
            kept.layer.add().CopyFrom(layer)
    return kept


def _included(layer: Any, state: Any) -> bool:
    if layer.include and layer.exclude:
        raise NetError(f"layer '{layer.name}': give include rules or exclude rules, not both")
    if layer.include:
        return any(_meets(state, rule) for rule in layer.include)
    return not any(_meets(state, rule) for rule in layer.exclude)


def _meets(state: Any, rule: Any) -> bool:
    stages = set(state.stage)
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )


def insert_splits(net: Any) -> Any:
    """A copy of ``net`` where every top read more than once goes through a Split layer.

    A top with a ``loss_weight`` in the prototxt counts as read once more, and hands the weight
    to the split; the weight that loss layers have by default is not seen here, as in Caffe.
    Raises NetError for a bottom that no earlier layer produces.
    """
    producers: dict[str, tuple[int, int]] = {}
    readers: dict[tuple[int, int], tuple[int, int]] = {}
    uses: Counter[tuple[int, int]] = Counter()
    weights: dict[tuple[int, int], float] = {}
    for i, layer in enumerate(net.layer):
        for j, bottom in enumerate(layer.bottom):
            if bottom not in producers:
                raise NetError(
                    f"layer '{layer.name}' ({layer.type}): unknown bottom '{bottom}'"
                    f"{close_matches(bottom, producers)}; no earlier layer has this top"
                )
            readers[i, j] = producers[bottom]
            uses[producers[bottom]] += 1
        for j, top in enumerate(layer.top):
            producers[top] = (i, j)
        for j, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            if weight:
                weights[i, j] = weight
                uses[i, j] += 1
    return _with_splits(net, readers, uses, weights)


def _with_splits(
    net: Any,
    readers: dict[tuple[int, int], tuple[int, int]],
    uses: Counter[tuple[int, int]],
    weights: dict[tuple[int, int], float],
) -> Any:
    split = schema.NetParameter()
    split.CopyFrom(net)
    del split.layer[:]
    handed_out: Counter[tuple[int, int]] = Counter()
    for i, original in enumerate(net.layer):
        layer = split.layer.add()
        layer.CopyFrom(original)
        for j, bottom in enumerate(original.bottom):
            source = readers[i, j]
            if uses[source] > 1:
                owner = net.layer[source[0]].name
                layer.bottom[j] = f"{_split_name(owner, bottom, source[1])}_{handed_out[source]}"
                handed_out[source] += 1
        for j, top in enumerate(original.top):
            if uses[i, j] > 1:
                _add_split(split, original.name, top, j, uses[i, j], weights.get((i, j), 0.0))
                if weights.get((i, j)):
                    layer.loss_weight[j] = 0.0
                    handed_out[i, j] += 1
    return split


def _split_name(layer: str, blob: str, top: int) -> str:
    return f"{blob}_{layer}_{top}_split"


def _add_split(net: Any, layer: str, blob: str, top: int, count: int, weight: float) -> None:
    name = _split_name(layer, blob, top)
    split = net.layer.add(name=name, type="Split", bottom=[blob])
    split.top.extend(f"{name}_{k}" for k in range(count))
    if weight:
        split.loss_weight.extend([weight] + [0.0] * (count - 1))
