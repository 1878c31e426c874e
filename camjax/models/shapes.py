"""A model of the registry without weights: its structure, and the shapes and types of its arrays."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from camjax.models.base import CamModel
from camjax.models.head import Pool
from camjax.models.registry import create_model


def model_shapes(
    name: str,
    num_classes: int | None = None,
    *,
    pool: Pool = "gap",
    dtype: DTypeLike = jnp.float32,
    wsol: Mapping[str, Any] | None = None,
) -> CamModel:
    """What `create_model` builds and raises for these arguments, with a `jax.ShapeDtypeStruct` for every array.

    It takes a fifth of the time of `nnx.eval_shape(create_model)`, and less for deep networks: counting random keys,
    as that does, takes flax and JAX longer the more was traced before.
    """
    return nnx.eval_shape(
        lambda: create_model(name, num_classes, pool=pool, dtype=dtype, rngs=_OneKeyRngs(), wsol=wsol)
    )


class _OneKeyRngs(nnx.Rngs):
    def __init__(self):
        super().__init__(0)
        self.default = _OneKey(0, tag="default")


class _OneKey(nnx.RngStream):
    """A stream that gives the same key each time and counts nothing: shapes do not depend on it."""

    def __call__(self):
        return self.key[...]

    def fork(self, *, split=None):
        # A layer that keeps a stream, as dropout does, gets an ordinary one.
        return nnx.RngStream(self.key[...], tag=self.tag)
