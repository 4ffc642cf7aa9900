"""MarginInnerProduct against the original's layer: values, lambda, weights, both gradients."""

from __future__ import annotations

from types import SimpleNamespace

import golden
import numpy as np
import pytest
import torch
from tolerance import FORWARD, GRADIENT, assert_close

from port import load_net
from port.errors import NetError
from port.layers.margin_inner_product import _CaffeMargin, exact_margin, lambda_at
from port.net import Net

ORDER = "float32 sums in another order"


@pytest.mark.parametrize("name", golden.cases("margin"))
def test_golden(name: str) -> None:
    case = golden.load("margin", name)
    arrays = case.arrays
    net = load_net(case.meta["prototxt"])
    weight = net.params["fc6"][0]
    weight.data.copy_(torch.from_numpy(arrays["w_before"]))
    x = torch.from_numpy(arrays["x"]).requires_grad_()
    label = torch.from_numpy(arrays["label"])
    for forward in range(1, 6):
        outputs = net(x=x, label=label)
        theirs = arrays["lambdas"][forward - 1 : forward]
        assert_close(outputs["lambda"], theirs, 1e-6, "one float32 pow", f"lambda {forward}")
        if forward not in (1, 5):
            continue
        assert_close(outputs["fc6"], arrays[f"top_{forward}"], FORWARD, ORDER, f"top {forward}")
        after = arrays["w_after" if forward == 1 else "w_after5"]
        assert_close(weight, after, FORWARD, ORDER, f"weights after forward {forward}")
        x.grad = weight.grad = None
        outputs["fc6"].backward(torch.from_numpy(arrays["dtop"]))
        assert_close(x.grad, arrays[f"dx_{forward}"], GRADIENT, ORDER, f"dx {forward}")
        assert_close(weight.grad, arrays[f"dW_{forward}"], GRADIENT, ORDER, f"dW {forward}")


@pytest.mark.parametrize(
    ("solver_iteration", "printed", "base", "gamma"),
    [
        (0, "892.857", 1000, 0.12),
        (500, "16.3613", 1000, 0.12),
        (600, "13.6761", 1000, 0.12),
        (700, "11.7481", 1000, 0.12),
        (800, "10.2965", 1000, 0.12),
        (1658, "5", 1000, 0.12),
        (7000, "8.77178", 10, 2e-5),
    ],
)
def test_lambda_of_real_training_logs(
    solver_iteration: int, printed: str, base: float, gamma: float
) -> None:
    assert f"{lambda_at(solver_iteration + 1, base, gamma, 1, 5):g}" == printed


NET = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 6 dim: 5 }} }} }}
layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ dim: 6 }} }} }}
layer {{ name: "fc6" type: "MarginInnerProduct" bottom: "x" bottom: "label" top: "fc6" {tops}
  margin_inner_product_param {{
    num_output: 4 type: {margin} weight_filler {{ type: "xavier" }}
    base: 10 gamma: 0.1 power: 1 lambda_min: 2 }} }}
"""


def _inputs(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(6, 5, generator=generator, dtype=dtype)
    return {"x": x, "label": torch.tensor([0, 1, 2, 3, 0, 2], dtype=dtype)}


def _step(net: Net) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, and the gradients of their squares' sum to x and W, from weights of one seed."""
    weight, inputs = net.params["fc6"][0], _inputs()
    values = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    weight.data.copy_(values)
    inputs["x"].requires_grad_()
    logits = net(**inputs)["fc6"]
    logits.square().sum().backward()
    return logits, inputs["x"].grad, weight.grad


@pytest.mark.parametrize("margin", ["SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE"])
def test_exact_gradient_is_the_gradient_of_the_forward(margin: str) -> None:
    inputs = _inputs(torch.float64)
    weight = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    x = inputs["x"].requires_grad_()
    label = inputs["label"].long()
    assert torch.autograd.gradcheck(
        lambda a, w: exact_margin(a, w, label, 3.0, margin), (x, weight)
    )


@pytest.mark.parametrize("margin", ["SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE"])
def test_exact_and_caffe_have_one_forward_and_two_gradients(margin: str) -> None:
    results = {
        gradient: _step(load_net(NET.format(margin=margin, tops=""), gradient=gradient))
        for gradient in ("caffe", "exact")
    }
    caffe, exact = results["caffe"], results["exact"]
    assert_close(caffe[0], exact[0].detach(), 1e-6, "the same arithmetic")
    x_differs = (caffe[1] - exact[1]).abs().max() / exact[1].abs().max()
    assert (x_differs > 0.05) == (margin != "SINGLE")
    # Caffe's weight gradient ignores the normalisation, so even SINGLE differs.
    assert (caffe[2] - exact[2]).abs().max() / exact[2].abs().max() > 0.05


def test_one_top_is_allowed() -> None:
    net = load_net(NET.format(margin="QUADRUPLE", tops=""))
    assert net(**_inputs())["fc6"].shape == (6, 4)


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_every_forward_counts_in_either_phase(phase: str) -> None:
    net = load_net(NET.format(margin="DOUBLE", tops='top: "lambda"'), phase=phase)
    found = [net(**_inputs())["lambda"].item() for _ in range(3)]
    np.testing.assert_allclose(found, [10 / 1.1, 10 / 1.2, 10 / 1.3], rtol=1e-6)


def test_two_forwards_before_a_backward() -> None:
    net = load_net(NET.format(margin="QUADRUPLE", tops=""))
    first, second = net(**_inputs())["fc6"], net(**_inputs())["fc6"]
    (first.sum() + second.sum()).backward()
    assert torch.isfinite(net.params["fc6"][0].grad).all()


@pytest.mark.parametrize("label", [-1, 4])
def test_label_out_of_range(label: int) -> None:
    net = load_net(NET.format(margin="QUADRUPLE", tops=""))
    inputs = _inputs()
    inputs["label"][3] = label
    with pytest.raises(NetError, match=rf"layer 'fc6' .*label {label} is outside 0 … 3"):
        net(**inputs)


def test_zero_feature_gives_nan_only_in_its_label_logit() -> None:
    net = load_net(NET.format(margin="QUADRUPLE", tops=""))
    inputs = _inputs()
    inputs["x"][2] = 0
    logits = net(**inputs)["fc6"]
    assert torch.isnan(logits[2, 2])
    assert torch.isnan(logits).sum() == 1


def test_extra_memory_is_of_the_order_of_rows_not_of_the_product() -> None:
    """Of all memory that forward and backward touch, M x N have only logits and their gradient."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Large(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.storages: set[int] = set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.untyped_storage().nbytes() >= 4 * 64 * 900:
                self.storages.add(out.untyped_storage().data_ptr())
            return out

    text = NET.replace("dim: 6", "dim: 64").replace("num_output: 4", "num_output: 900")
    net = load_net(text.format(margin="QUADRUPLE", tops=""))
    x = torch.randn(64, 5, requires_grad=True)
    label = torch.randint(0, 900, (64,)).float()
    grad = torch.ones(64, 900)
    with Large() as large:
        logits = net(x=x, label=label)["fc6"]
        logits.backward(grad)
    plain = {tensor.untyped_storage().data_ptr() for tensor in (logits, grad)}
    assert large.storages == plain


@pytest.mark.parametrize("margin", ["SINGLE", "QUADRUPLE"])
def test_fake_cuda_tensors_stay_on_their_device(margin: str) -> None:
    """A host read (item, numpy, bool) of a fake tensor raises, so running at all is the proof.

    The autograd engine of a CPU build knows no CUDA device: both ways are called directly.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    net = load_net(NET.format(margin=margin, tops='top: "lambda"'))
    layer = net.layer("fc6")
    saved = SimpleNamespace(needs_input_grad=(True, True, False, False, False))
    saved.save_for_backward = lambda *tensors: setattr(saved, "saved_tensors", tensors)
    with FakeTensorMode(), torch.no_grad():
        layer.weight = torch.nn.Parameter(torch.empty(4, 5, device="cuda"), requires_grad=False)
        x, label = torch.empty(6, 5, device="cuda"), torch.empty(6, device="cuda")
        tops = layer(x, label)
        logits = _CaffeMargin.forward(saved, x, layer.weight, label.long(), 5.0, margin)
        grads = _CaffeMargin.backward(saved, logits)
    for tensor in (*tops, logits, *grads[:2]):
        assert tensor.device.type == "cuda"


@pytest.mark.cuda
@pytest.mark.parametrize("margin", ["SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE"])
def test_cuda_equals_cpu(margin: str) -> None:
    found = {
        device: _step(load_net(NET.format(margin=margin, tops=""), device=device))
        for device in ("cpu", "cuda")
    }
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        assert_close(ours, theirs.detach(), GRADIENT, ORDER)
