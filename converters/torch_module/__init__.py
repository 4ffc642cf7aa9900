"""A net written out as a plain PyTorch module: one readable file and its weights."""

from converters.torch_module.write import module_source, to_torch

__all__ = ["module_source", "to_torch"]
