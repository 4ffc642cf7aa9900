"""One call from a net to a checked file."""

from __future__ import annotations

from pathlib import Path

from converters.deploy import fold_batch_norm
from converters.onnx.check import (
    HALF_BOUND,
    SINGLE_BOUND,
    Difference,
    check_structure,
    compare,
)
from converters.onnx.emit import Options, emit
from port.caffemodel import written_whole
from port.errors import ConversionError
from port.net import Net


def to_onnx(
    net: Net,
    path: str | Path,
    options: Options | None = None,
    *,
    fold_bn: bool = False,
    check: bool = True,
    image: str | Path | None = None,
    bound: float | None = None,
) -> list[Difference]:
    """Write a deploy net (``converters.deploy.load_deploy``) as ONNX and prove it.

    fold_bn: BatchNorm, Scale and Bias are worked into the convolution before them. check: onnx's
    checker with shape inference, then onnxruntime against the net as it was given, on random
    input and on ``image`` or a rendered face. bound: the largest difference allowed, relative to
    the output's largest value; by default 1e-5, or 2e-2 with float16.
    Returns the differences found. Raises ConversionError, and then no file is left.
    """
    options = options or Options()
    emitted = emit(fold_batch_norm(net) if fold_bn else net, options)
    with written_whole(path) as temporary:
        with open(temporary, "wb") as file:
            for chunk in emitted.chunks():
                file.write(chunk)
        if not check:
            return []
        check_structure(temporary)
        found = compare(temporary, net, options, Path(image) if image else None)
        default = HALF_BOUND if options.half else SINGLE_BOUND
        _refuse_beyond(found, default if bound is None else bound)
    return found


def _refuse_beyond(found: list[Difference], bound: float) -> None:
    worst = max(found, key=lambda difference: difference.relative)
    if not worst.relative <= bound:
        raise ConversionError(
            f"output '{worst.output}' on input '{worst.fed}' differs by {worst.relative:.2g} of "
            f"its largest value in onnxruntime, {bound:.2g} is allowed; no file was written"
        )
