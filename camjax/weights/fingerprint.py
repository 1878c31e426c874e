"""Identifies a model's weights: by a hash of their bits, and by numbers that are the same on every machine."""

import hashlib
import math

import jax
import numpy as np
from flax import nnx

from camjax.outputs import BoundNetwork


def weights_sha256(model: nnx.Module | BoundNetwork) -> str:
    """SHA-256 of the names and values of all arrays of a model; of the model that an exported network was made of."""
    if isinstance(model, BoundNetwork):
        return model.weights_sha256
    return tree_sha256(nnx.to_pure_dict(nnx.state(model)))


def tree_sha256(tree: dict) -> str:
    """SHA-256 of the names and values of all arrays of a nested dict."""
    digest = hashlib.sha256()
    for path, value in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(value if not jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key) else _key_data(value))
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def weights_sum_and_norm(model: nnx.Module) -> tuple[float, float]:
    """The sum of a model's parameters and statistics, and the root of the sum of their squares.

    Another kind of device draws random weights with other last bits, so their hash differs. These numbers then still
    agree to about a millionth of the norm, and those of other weights do not.
    """
    arrays = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(nnx.state(model, (nnx.Param, nnx.BatchStat)))]
    total = math.fsum(array.sum(dtype=np.float64) for array in arrays)
    # In float64, which vdot would not be, and without a copy of the array.
    squares = math.fsum(np.einsum("i,i", array, array, dtype=np.float64) for array in arrays)
    return total, math.sqrt(squares)


def _key_data(key: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(key))
