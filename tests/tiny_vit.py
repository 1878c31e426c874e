"""Vision transformers so small that a program of one compiles in a second: 32 x 32 pixels, 4 x 4 patches."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

import camjax
from camjax.models import vit, vit_blocks
from camjax.models.base import IMAGENET_INPUT


def tiny(num_classes: int = 5, *, kind=vit.ClassToken, depth: int = 2, dtype=np.float32, rngs, **options):
    """A network of 16 numbers a token and 2 heads.

    Args:
      num_classes, dtype, rngs: as in `camjax.create_model`.
      kind: `ClassToken`, or another.
      depth: number of blocks.
      **options: of the network.
    """
    vit_blocks.SIZES[f"tiny {depth}"] = vit_blocks.Size(16, depth, 2, 32)
    shape = {"size": f"tiny {depth}", "patch": 8, "side": 32, "input_rule": IMAGENET_INPUT}
    return kind(num_classes, **shape, **options, dtype=dtype, rngs=rngs)


def tiny_vit(weights: Mapping[str, np.ndarray] | None = None, **options):
    """`tiny` in inference mode.

    Args:
      weights: of all parameters, by their places; drawn by NumPy if not given, large enough to tell patches apart.
      **options: of `tiny`.
    """
    model = tiny(rngs=nnx.Rngs(0), **options)
    model.eval()
    random, left = np.random.default_rng(0), dict(weights or {})
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        place = ".".join(map(str, path))
        value = variable[...] + 0.3 * random.standard_normal(variable.shape) if weights is None else left.pop(place)
        assert value.shape == variable.shape, place
        variable.set_value(jnp.asarray(value, jnp.float32))
    assert not left
    return model


camjax.register_model("tiny_vit", tiny)
