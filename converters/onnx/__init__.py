"""From a Net to ONNX, and the proof that the numbers did not move."""

from converters.onnx.check import Difference
from converters.onnx.convert import to_onnx
from converters.onnx.emit import Options, Pixels, supported_types, to_model

__all__ = ["Difference", "Options", "Pixels", "supported_types", "to_model", "to_onnx"]
