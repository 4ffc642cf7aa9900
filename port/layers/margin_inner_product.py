"""MarginInnerProduct: the A-Softmax head of SphereFace."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import FunctionCtx, once_differentiable

from port import schema
from port.layers.labels import check_labels
from port.layers.layer import Layer, Shape


def lambda_at(iteration: int, base: float, gamma: float, power: float, lambda_min: float) -> float:
    """Annealing weight of the softmax term at a forward, counted from 1, in float32 arithmetic.

    max(lambda_min, base * (1 + gamma * iteration) ** -power).
    Source: SphereFace's Caffe fork, margin_inner_product_layer.cpp, Forward.
    """
    f32 = np.float32
    grown = f32(1) + f32(gamma) * f32(iteration)
    return float(max(f32(base) * np.power(grown, -f32(power)), f32(lambda_min)))


def _sign(x: torch.Tensor) -> torch.Tensor:
    return torch.sign(x)


def _double(c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    s0 = _sign(c)
    square = c * c
    return 2 * s0 * square - 1, 4 * s0 * c, -(2 * s0 * square + 1)


def _triple(c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    s1 = _sign(c.abs() - 0.5)
    s2 = _sign(c) * (1 + s1) - 2
    cube = c * c * c
    return (
        s1 * (4 * cube - 3 * c) + s2,
        s1 * (12 * c * c - 3),
        -(8 * s1 * cube - s2),
    )


def _quadruple(c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    s0 = _sign(c)
    square = c * c
    s3 = s0 * _sign(2 * square - 1)
    s4 = 2 * s0 + s3 - 3
    fourth = square * square
    return (
        s3 * (8 * fourth - 8 * square + 1) + s4,
        s3 * (32 * c * square - 16 * c),
        -(s3 * (24 * fourth - 8 * square - 1) - s4),
    )


# Margin → f(cosine) giving psi, and Caffe's pair (a, b·|x|): the weights of w_y and of x in
# the unnormalised bottom gradient.
_MARGINS = {"DOUBLE": _double, "TRIPLE": _triple, "QUADRUPLE": _quadruple}


def _blend(
    label_logit: torch.Tensor, norm: torch.Tensor, lambda_: float, margin: str
) -> torch.Tensor:
    """(|x| psi(c) + lambda x·w_y) / (1 + lambda), c = x·w_y / |x|; all tensors (M,)."""
    psi = _MARGINS[margin](label_logit / norm)[0]
    return (norm * psi + lambda_ * label_logit) / (1 + lambda_)


class _CaffeMargin(torch.autograd.Function):
    """Caffe's forward and its own backward, which is not the gradient of the forward.

    The label's logit is corrected in place in the (M, N) product, and its gradient is corrected
    by one row term, so that nothing of size M x N is made beyond a plain product's tensors.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        label: torch.Tensor,
        lambda_: float,
        margin: str,
    ) -> torch.Tensor:
        logits = F.linear(x, weight)
        # Not saved for backward: a second forward before it (a net run twice) normalises the
        # unit rows again in place, which is no change that autograd should object to.
        ctx.weight = weight.detach()
        ctx.lambda_, ctx.margin = lambda_, margin
        if margin == "SINGLE":
            ctx.save_for_backward(x)
            return logits
        index = label.unsqueeze(1)
        label_logit = logits.gather(1, index).squeeze(1)
        norm = torch.linalg.vector_norm(x, dim=1)
        ctx.save_for_backward(x, label, label_logit, norm)
        blended = _blend(label_logit, norm, lambda_, margin)
        return logits.scatter_(1, index, blended.unsqueeze(1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x = ctx.saved_tensors[0]
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        grad_x = grad_weight = None
        if needs_x:
            grad_x = grad @ ctx.weight
            if ctx.margin != "SINGLE":
                _correct_label_rows(ctx, grad, grad_x)
        if needs_weight:
            grad_weight = grad.t() @ x
        return grad_x, grad_weight, None, None, None


def _correct_label_rows(ctx: FunctionCtx, grad: torch.Tensor, grad_x: torch.Tensor) -> None:
    """Turn g_y w_y in ``grad_x`` (M, K), in place, into Caffe's normalised label gradient.

    g_y [(a w_y + b x) / sqrt(a² + b²) + lambda w_y] / (1 + lambda), with b carrying 1/|x|.
    """
    x, label, label_logit, norm = ctx.saved_tensors  # type: ignore[attr-defined]
    _, a, b = _MARGINS[ctx.margin](label_logit / norm)  # type: ignore[attr-defined]
    b = b / norm
    length = torch.sqrt(a * a + b * b)
    label_grad = grad.gather(1, label.unsqueeze(1)).squeeze(1) / (1 + ctx.lambda_)  # type: ignore[attr-defined]
    label_weight = ctx.weight.index_select(0, label)  # type: ignore[attr-defined]
    # What is already there is (1 + lambda) label_grad w_y: take the 1 away, keep the lambda.
    grad_x.addcmul_(label_weight, (label_grad * (a / length - 1)).unsqueeze(1))
    grad_x.addcmul_(x, (label_grad * (b / length)).unsqueeze(1))


def caffe_margin(
    x: torch.Tensor, weight: torch.Tensor, label: torch.Tensor, lambda_: float, margin: str
) -> torch.Tensor:
    """A-Softmax logits (M, N) of x (M, K), unit rows W (N, K), label (M,), with Caffe's gradients.

    To W: gᵀ x. To x: the label's part has the direction of the gradient and a length fixed by
    normalisation. Source: as MarginInnerProduct, Forward and Backward.
    """
    logits: torch.Tensor = _CaffeMargin.apply(x, weight, label, lambda_, margin)  # type: ignore[no-untyped-call]
    return logits


class _ExactPsi(torch.autograd.Function):
    """psi(c) with its true derivative; the signs are constants between the segments' ends."""

    @staticmethod
    def forward(ctx: Any, cosine: torch.Tensor, margin: str) -> torch.Tensor:
        psi, slope, _ = _MARGINS[margin](cosine)
        ctx.save_for_backward(slope)
        return psi

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None


def exact_margin(
    x: torch.Tensor, weight: torch.Tensor, label: torch.Tensor, lambda_: float, margin: str
) -> torch.Tensor:
    """The paper's A-Softmax logits (M, N), autograd through x, W and W's normalisation.

    Source: SphereFace, arXiv 1704.08063, equations 6-7 with the released annealing.
    """
    unit = F.normalize(weight, dim=1, eps=0.0)
    logits = F.linear(x, unit)
    if margin == "SINGLE":
        return logits
    index = label.unsqueeze(1)
    label_logit = logits.gather(1, index).squeeze(1)
    norm = torch.linalg.vector_norm(x, dim=1)
    psi = _ExactPsi.apply(label_logit / norm, margin)  # type: ignore[no-untyped-call]
    blended = (norm * psi + lambda_ * label_logit) / (1 + lambda_)
    return logits.scatter(1, index, blended.unsqueeze(1))


class MarginInnerProduct(Layer):
    """Bottoms x (M, K after ``axis``), label (M,) → tops logits (M, N), lambda (1,).

    Blob: weight (N, K), its rows scaled to unit length **in place** by every forward.
    The net's ``gradient`` option picks the backward: "caffe" (default) or "exact".
    ``iteration`` counts forwards, in either phase; the first one sees iteration + 1.
    Raises NetError for a batch mismatch and for labels outside 0 … num_output - 1.
    Source: SphereFace's Caffe fork, src/caffe/layers/margin_inner_product_layer.cpp.
    """

    type = "MarginInnerProduct"
    param_field = "margin_inner_product_param"
    fields = frozenset(
        {"num_output", "type", "weight_filler", "axis"}
        | {"base", "gamma", "power", "lambda_min", "iteration"}
    )
    bottoms = (2, 2)
    tops = (1, 2)
    weight: torch.Tensor

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        x, label = bottoms
        param = self.param
        self.first_axis = self.axis(param.axis, len(x))
        self.inputs = math.prod(x[self.first_axis :])
        self.outputs: int = param.num_output
        if self.outputs < 1 or self.inputs < 1:
            self.refuse(f"needs num_output and inputs above 0: {self.outputs} and {self.inputs}")
        self.margin: str = schema.enum_name(param, "type")
        self.iteration: int = param.iteration
        rows = math.prod(x[: self.first_axis])
        if rows != math.prod(label):
            self.refuse(f"needs one label for each of {rows} items, found {math.prod(label)}")
        self.add_blob("weight", (self.outputs, self.inputs), param.weight_filler)
        return [(*x[: self.first_axis], self.outputs), (1,)][: len(self.spec.top)]

    def next_lambda(self) -> float:
        """Count one forward and return its lambda."""
        self.iteration += 1
        p = self.param
        return lambda_at(self.iteration, p.base, p.gamma, p.power, p.lambda_min)

    def forward(
        self, x: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        lambda_ = self.next_lambda()
        rows = x.flatten(self.first_axis)
        lead = rows.shape[:-1]
        rows = rows.reshape(-1, rows.shape[-1])
        if rows.shape[1] != self.inputs:
            self.refuse(
                f"weights take {self.inputs} values per item, the bottom {tuple(x.shape)} "
                f"has {rows.shape[1]}; feed the size that the net was written for"
            )
        if rows.shape[0] != label.numel():
            self.refuse(f"needs one label for each of {rows.shape[0]} items: {label.numel()}")
        classes = label.reshape(-1).long()
        check_labels(self, classes, self.outputs)
        self._normalise_rows()
        head = exact_margin if self.context.gradient == "exact" else caffe_margin
        logits = head(rows, self.weight, classes, lambda_, self.margin)
        logits = logits.reshape(*lead, self.outputs)
        return (logits, x.new_full((1,), lambda_)) if len(self.spec.top) == 2 else logits

    @torch.no_grad()
    def _normalise_rows(self) -> None:
        """Unit rows, written into the parameter; no epsilon: a zero row becomes NaN."""
        self.weight.div_(torch.linalg.vector_norm(self.weight, dim=1, keepdim=True))
