"""``load_net(compile=True)``: the same numbers from a forward with frozen weights."""

from __future__ import annotations

import shutil

import pytest
import torch
from tolerance import FORWARD, assert_close

from port import load_net
from port.errors import NetError

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "prelu" type: "PReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""


def test_a_train_net_is_refused() -> None:
    with pytest.raises(NetError, match="only a net of the TEST phase is compiled"):
        load_net(NET, phase="TRAIN", compile=True)


@pytest.mark.slow
def test_same_numbers_for_any_batch_and_blob() -> None:
    assert shutil.which("g++") or shutil.which("clang++"), "torch.compile needs a C++ compiler"
    torch.manual_seed(0)
    eager = load_net(NET)
    net = load_net(NET, compile=True)
    net.share_weights(eager)
    for n in (1, 2, 5):
        x = torch.randn(n, 3, 6, 6)
        ours, theirs = net(x, blobs=["conv"]), eager(x, blobs=["conv"])
        for blob in ("fc", "conv"):
            assert_close(ours[blob], theirs[blob], FORWARD, "fused float32 sums", blob)
        assert not ours["fc"].requires_grad
    assert "self.conv(x)" in net.code
