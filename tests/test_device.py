"""A training step stays on its device: forward, loss and update on fake CUDA tensors.

A fake tensor has no data: reading it on the host (item, numpy, bool) raises, and an operation that
mixes devices raises too. The autograd engine of a CPU build knows no CUDA device, so the backward
passes that are ours are called directly, in the layers' own tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from port import load_net, schema
from port.prototxt import parse
from port.solver import updates
from port.solver.updates import UpdateRule

REFERENCE = Path(__file__).resolve().parents[1] / "reference_prototxt"
RULES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")


@torch.no_grad()
def test_forward_and_loss_of_the_train_net() -> None:
    model = REFERENCE / "sphereface_4_model.prototxt"
    net = load_net(model, phase="TRAIN", open_data=False, input_shape=(3, 112, 96))
    with FakeTensorMode():
        for module in net.modules():  # by hand: Module.to() cannot make fakes of real parameters
            for name, blob in module.named_parameters(recurse=False):
                setattr(module, name, torch.nn.Parameter(torch.empty(blob.shape, device="cuda")))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty(buffer.shape, device="cuda"))
        assert net.device.type == "cuda"
        net.memory_format = torch.contiguous_format  # a fake cannot be made channels_last
        data, label = torch.empty(2, 3, 112, 96), torch.empty(2)  # as a data layer hands them out
        outputs = net(data=data, label=label, blobs=["fc5", "conv1_1"])
        for tensor in (*outputs.values(), net.total_loss(outputs), *net.parameters()):
            assert tensor.device.type == "cuda"


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("regularizer", ["L2", "L1"])
def test_update(kind: str, regularizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "_FUSED", None)  # torch has no fake form of its fused SGD
    text = (
        f'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 momentum2: 0.99 delta: 0.1 '
        f'rms_decay: 0.9 weight_decay: 0.0005 type: "{kind}" regularization_type: "{regularizer}"'
    )
    text = text.replace("momentum: 0.9 ", "") if kind in ("AdaGrad", "RMSProp") else text
    with FakeTensorMode():
        shapes = ((8, 3, 3, 3), (8,))
        parameters = [torch.nn.Parameter(torch.empty(shape, device="cuda")) for shape in shapes]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        rule = UpdateRule(parse(text, schema.SolverParameter), parameters)
        rule.apply(parameters, [0.1, 0.2], [5e-4, 0.0], 0.5, 3)
        for tensor in (*parameters, *rule.history, *(p.grad for p in parameters)):
            assert tensor.device.type == "cuda"


@pytest.mark.cuda
def test_cuda_step_equals_cpu_step() -> None:
    losses = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = REFERENCE / "sphereface_4_model.prototxt"
        options = {"open_data": False, "input_shape": (3, 112, 96)}
        net = load_net(model, phase="TRAIN", device=device, **options)
        generator = torch.Generator().manual_seed(1)
        data = torch.rand(4, 3, 112, 96, generator=generator)
        loss = net.total_loss(net(data=data, label=torch.arange(4.0)))
        loss.backward()
        losses[device] = [loss.detach().cpu(), net.params["fc5"][0].grad.cpu()]
    for ours, theirs in zip(losses["cuda"], losses["cpu"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
