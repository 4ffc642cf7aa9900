"""From a Net to ONNX, and the proof that the numbers did not move."""

from converters.onnx.emit import Options, Pixels, supported_types, to_model

__all__ = ["Options", "Pixels", "supported_types", "to_model"]
