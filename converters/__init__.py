"""Caffemodel to PyTorch and back, and to ONNX. May import ``port``, never ``verify``."""
