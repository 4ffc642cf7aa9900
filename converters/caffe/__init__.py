"""From ONNX or PyTorch to a Caffe net, where each operator is a Caffe layer."""

from converters.caffe.build import write_caffe
from converters.caffe.from_onnx import from_onnx
from converters.caffe.from_torch import from_torch

__all__ = ["from_onnx", "from_torch", "write_caffe"]
