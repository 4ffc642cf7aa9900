"""Caffe's update rules.

They are not torch.optim's: the rate is multiplied into the history, so that the two part as soon
as the rate changes. Every rule gets the parameters' gradients (after clipping, division by
iter_size and weight decay), changes its history, and puts what is to be subtracted in the
gradients' place.
Source: BVLC Caffe 1.0, src/caffe/solvers/*_solver.cpp, ComputeUpdateValue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from port.errors import SolverError, close_matches

Tensors = list[torch.Tensor]
PIECE = 1 << 16
"""Values that a rule works on at a time on the CPU: all its operands stay in the cache."""


class UpdateRule:
    """One rule with its history, laid out as in a solverstate.

    ``history``: one tensor for each learnable parameter, twice as many for Adam and AdaDelta
    (first all of the one kind, then all of the other).
    """

    def __init__(self, param: Any, parameters: Sequence[torch.Tensor]) -> None:
        self.param = param
        self._rule = _rule(param)
        self.history: Tensors = [
            torch.zeros_like(parameter, requires_grad=False)
            for _ in range(_HISTORIES.get(param.type, 1))
            for parameter in parameters
        ]
        self._count = len(parameters)

    @torch.no_grad()
    def apply(
        self,
        parameters: Sequence[torch.nn.Parameter],
        rates: Sequence[float],
        decays: Sequence[float],
        scale: float,
        iteration: int,
    ) -> None:
        """One update of the parameters, in place; each ``grad`` then holds what was subtracted.

        rates, decays: rate times lr_mult and weight_decay times decay_mult of each parameter.
        scale: what the accumulated gradients are multiplied by first. A parameter that needs no
        gradient has rate 0: it stays as it is, but the adaptive rules see its decay, as in Caffe,
        and keep a history of it.
        """
        plain = self.param.type in ("SGD", "Nesterov")
        live = [i for i, p in enumerate(parameters) if p.requires_grad or not plain]
        if not live:
            return
        data = [parameters[i].detach() for i in live]
        grads = [_aligned(parameters[i]) for i in live]
        if scale != 1:
            torch._foreach_mul_(grads, scale)
        rates, decays = [rates[i] for i in live], [decays[i] for i in live]
        histories = [
            [self.history[offset + i] for i in live]
            for offset in range(0, len(self.history), self._count)
        ]
        if self.param.regularization_type == "L2" and self._fusible(data):
            _fused_sgd(data, grads, histories[0], rates, decays, self.param.momentum)
            grads = histories[0]
        elif data[0].device.type == "cpu":
            columns = zip(data, grads, *histories, strict=True)
            for column, rate, decay in zip(columns, rates, decays, strict=True):
                for w, g, *h in zip(*(torch.split(_flat(t), PIECE) for t in column), strict=True):
                    self._update([w], [g], [[part] for part in h], [rate], [decay], iteration)
        else:
            self._update(data, grads, histories, rates, decays, iteration)
        for i, grad in zip(live, grads, strict=True):
            parameters[i].grad = grad

    def _update(
        self,
        data: Tensors,
        grads: Tensors,
        histories: list[Tensors],
        rates: Sequence[float],
        decays: Sequence[float],
        iteration: int,
    ) -> None:
        self._decay(data, grads, decays)
        self._rule(self.param, grads, histories, rates, iteration)
        torch._foreach_sub_(data, grads)

    def _fusible(self, data: Tensors) -> bool:
        plain = self.param.type == "SGD" and self.param.momentum != 0
        return plain and all(t.dtype == torch.float32 for t in data) and _FUSED is not None

    def _decay(self, data: Tensors, grads: Tensors, decays: Sequence[float]) -> None:
        """Add the regulariser's gradient in place: decay * w (L2) or decay * sign(w) (L1)."""
        kind = self.param.regularization_type
        if kind not in ("L1", "L2"):
            raise SolverError(f"unknown regularization_type '{kind}'; known: L1, L2")
        decayed = [i for i, decay in enumerate(decays) if decay]
        if not decayed:
            return
        terms = [data[i] for i in decayed]
        if kind == "L1":
            terms = list(torch._foreach_sign(terms))
        amounts = [decays[i] for i in decayed]
        torch._foreach_add_([grads[i] for i in decayed], torch._foreach_mul(terms, amounts))


def _aligned(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The gradient in the memory layout of its parameter, where the rules work in one stride."""
    if parameter.grad is None:
        return torch.zeros_like(parameter, requires_grad=False)
    grad = parameter.grad.detach()
    if grad.stride() == parameter.stride():
        return grad
    return torch.empty_like(parameter, requires_grad=False).copy_(grad)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The values of a dense tensor in the order of its memory, as a view."""
    return tensor.as_strided((tensor.numel(),), (1,))


_FUSED: Any = getattr(torch, "_fused_sgd_", None)


def _fused_sgd(
    data: Tensors,
    grads: Tensors,
    history: Tensors,
    rates: Sequence[float],
    decays: Sequence[float],
    momentum: float,
) -> None:
    """Decay, history and update in one pass over memory.

    torch's h = momentum h + (1 - dampening) (g + decay w), w -= lr h is Caffe's rule when
    1 - dampening is the rate and lr is 1.
    """
    groups: dict[tuple[float, float], list[int]] = {}
    for i, key in enumerate(zip(rates, decays, strict=True)):
        groups.setdefault(key, []).append(i)
    for (rate, decay), members in groups.items():
        _FUSED(
            [data[i] for i in members],
            [grads[i] for i in members],
            [history[i] for i in members],
            weight_decay=decay,
            momentum=momentum,
            lr=1.0,
            dampening=1.0 - rate,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )


def _mix(history: Tensors, keep: float, terms: Tensors, take: float) -> None:
    """history = keep * history + take * terms, in place."""
    torch._foreach_mul_(history, keep)
    torch._foreach_add_(history, terms, alpha=take)


def _sgd(
    param: Any, grads: Tensors, histories: list[Tensors], rates: Sequence[float], iteration: int
) -> None:
    (history,) = histories
    torch._foreach_mul_(grads, rates)
    _mix(history, param.momentum, grads, 1.0)
    torch._foreach_copy_(grads, history)


def _nesterov(
    param: Any, grads: Tensors, histories: list[Tensors], rates: Sequence[float], iteration: int
) -> None:
    (history,) = histories
    torch._foreach_mul_(grads, rates)
    _mix(history, param.momentum, grads, 1.0)
    # Caffe's (1 + momentum) * new - momentum * old, where new = momentum * old + rate * gradient.
    torch._foreach_add_(grads, history, alpha=param.momentum)


def _adagrad(
    param: Any, grads: Tensors, histories: list[Tensors], rates: Sequence[float], iteration: int
) -> None:
    (history,) = histories
    torch._foreach_addcmul_(history, grads, grads)
    _over_root(grads, history, param.delta, rates)


def _rmsprop(
    param: Any, grads: Tensors, histories: list[Tensors], rates: Sequence[float], iteration: int
) -> None:
    (history,) = histories
    torch._foreach_mul_(history, param.rms_decay)
    torch._foreach_addcmul_(history, grads, grads, value=1.0 - param.rms_decay)
    _over_root(grads, history, param.delta, rates)


def _over_root(grads: Tensors, squares: Tensors, delta: float, rates: Sequence[float]) -> None:
    """rate * grads / (sqrt(squares) + delta), in place in grads."""
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, delta)
    torch._foreach_div_(grads, roots)
    torch._foreach_mul_(grads, rates)


def _adadelta(
    param: Any, grads: Tensors, histories: list[Tensors], rates: Sequence[float], iteration: int
) -> None:
    squares, moves = histories
    keep, delta = param.momentum, param.delta
    torch._foreach_mul_(squares, keep)
    torch._foreach_addcmul_(squares, grads, grads, value=1.0 - keep)
    ratio = torch._foreach_add(moves, delta)
    torch._foreach_div_(ratio, torch._foreach_add(squares, delta))
    torch._foreach_sqrt_(ratio)
    torch._foreach_mul_(grads, ratio)
    torch._foreach_mul_(moves, keep)
    torch._foreach_addcmul_(moves, grads, grads, value=1.0 - keep)
    torch._foreach_mul_(grads, rates)


def _adam(
    param: Any, grads: Tensors, histories: list[Tensors], rates: Sequence[float], iteration: int
) -> None:
    means, squares = histories
    beta1, beta2, t = param.momentum, param.momentum2, iteration + 1
    correction = math.sqrt(1 - beta2**t) / (1 - beta1**t)
    _mix(means, beta1, grads, 1.0 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, value=1.0 - beta2)
    torch._foreach_copy_(grads, means)
    _over_root(grads, squares, param.delta, [rate * correction for rate in rates])


Rule = Callable[[Any, Tensors, list[Tensors], Sequence[float], int], None]
_RULES: dict[str, Rule] = {
    "SGD": _sgd,
    "Nesterov": _nesterov,
    "AdaGrad": _adagrad,
    "RMSProp": _rmsprop,
    "AdaDelta": _adadelta,
    "Adam": _adam,
}
_HISTORIES = {"AdaDelta": 2, "Adam": 2}


def _rule(param: Any) -> Rule:
    """The rule of ``param.type``; raises SolverError for what Caffe refuses."""
    kind = param.type
    if kind not in _RULES:
        raise SolverError(
            f"unknown solver type '{kind}'{close_matches(kind, _RULES)}; known: {', '.join(_RULES)}"
        )
    if kind in ("AdaGrad", "RMSProp") and param.momentum:
        raise SolverError(f"{kind} takes no momentum, found {param.momentum:g}; remove the field")
    if kind == "RMSProp" and not 0 <= param.rms_decay < 1:
        raise SolverError(f"RMSProp needs rms_decay in [0, 1), found {param.rms_decay:g}")
    return _RULES[kind]
