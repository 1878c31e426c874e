"""Exported networks in ONNX, for ONNX Runtime: converted by jax2onnx, and compared with JAX before they are written."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from camjax.errors import InputError
from camjax.exporting.plain import plain

SUFFIX = ".onnx"

INPUT = "images"
"""The name of what the file takes; what it gives has the names of `camjax.Localization`."""

TOLERANCE = 1e-3
"""How far ONNX Runtime's logits and maps may be from JAX's, as a share of the largest: both round in float32."""


def onnx_bytes(
    localize: Callable[..., Any], images: jax.ShapeDtypeStruct, size: tuple[int, int], about: Mapping[str, Any]
) -> bytes:
    """The content of an ONNX file.

    Args:
      localize: (images,) -> `camjax.Localization`; traceable.
      images: (B, H, W, 3) uint8 with symbolic sizes.
      size: (H, W) in pixels for the comparison with JAX.
      about: what the file says of itself, as JSON, in its metadata "camjax".

    Raises:
      ImportError: jax2onnx or ONNX Runtime is not installed.
      InputError: jax2onnx cannot convert the program, or converts it wrongly; the message has its words.
    """
    try:
        import onnxruntime
        from jax2onnx import to_onnx
    except ImportError as error:
        raise ImportError(f"{error.name} is not installed, which ONNX needs: docs/exporting.md says how.") from None

    # Both write pages about shapes that they do not know inside of loops.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    model = to_onnx(
        plain(localize, images),
        [images],
        model_name=about["model"],
        input_names=[INPUT],
        output_names=list(about["outputs"]),
    )
    model.metadata_props.add(key="camjax", value=json.dumps(about))
    content = model.SerializeToString()

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    found = dict(zip(about["outputs"], session.run(None, {INPUT: batch}), strict=True))
    expected = jax.jit(localize)(batch)._asdict()
    for name in ("logits", "maps"):
        apart = np.abs(found[name] - expected[name]).max() / max(np.abs(expected[name]).max(), 1e-30)
        if not apart <= TOLERANCE:
            raise InputError(f"jax2onnx converts this program wrongly: {name} differ by {apart:.1e} of the largest.")
    return content
