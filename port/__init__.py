"""sphereface-port: SphereFace's Caffe system on PyTorch, number for number.

``import port`` is cheap: torch is imported on the first use of a name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from port.net import Net, load_net

__all__ = ["Net", "__version__", "load_net"]
__version__ = "0.1.0"

_HOMES = {"Net": "port.net", "load_net": "port.net"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'port' has no attribute {name!r}")
