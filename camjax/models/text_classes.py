"""Classes that are given by texts: the zero-shot classifiers of CLIP and SigLIP."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from camjax.errors import InputError
from camjax.models.base import CamModel


class TextClasses(nnx.Module):
    """In place of the dense layer of a head: the cosines between an image's embedding and those of texts, scaled.

    Args:
      embeddings: (K, D) of one text for each class, or the mean of several; each is divided by its length.
      projection: leads from what the head's dense layer takes to an embedding of D numbers; None where that is one.
      scale: factor of the cosines.
      bias: added to them.

    Attributes:
      kernel: (D, K) float32.
      projection, scale, bias: as given.
    """

    def __init__(self, embeddings: jax.Array, projection: nnx.Linear | None, scale: float, bias: float):
        self.kernel = nnx.Param((embeddings / jnp.linalg.norm(embeddings, axis=1, keepdims=True)).T)
        self.projection = projection
        self.scale, self.bias = nnx.Param(jnp.float32(scale)), nnx.Param(jnp.float32(bias))

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, K') -> (B, K) float32 logits: scale times the cosine with the text's embedding, plus bias."""
        x = x if self.projection is None else self.projection(x)
        x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        cosines = jnp.dot(x, self.kernel[...], precision=jax.lax.Precision.HIGHEST)
        return cosines * self.scale[...] + self.bias[...]


def with_text_classes(
    model: CamModel,
    embeddings: ArrayLike,
    *,
    scale: float = 100.0,
    bias: float = 0.0,
    multi_label: bool = False,
    class_names: Sequence[str] | None = None,
) -> CamModel:
    """An image tower of CLIP or SigLIP as a classifier whose classes are texts (Radford et al. 2021, section 3.1.2).

    The logit of a class is `scale cos(image, text) + bias`. The texts' embeddings come from the text tower of the same
    pair, which camjax does not have.

    Args:
      model: with the weights of a tower: `vit_base_patch16_clip_224` and the like, whose head leads to embeddings, or
        `vit_base_patch16_siglip_224`.
      embeddings: (K, D) of one text for each class, of any length other than 0.
      scale: factor of the cosines, `exp(logit_scale)` of the pair's file; 100 is that of OpenAI's CLIP.
      bias: `logit_bias` of SigLIP's file; 0 for CLIP.
      multi_label: whether probabilities are sigmoids, as SigLIP was trained, else a softmax.
      class_names: K names.

    Returns:
      A new model with copies of the weights. It has no `created_as`, since no name of the registry makes it.

    Raises:
      ValueError: the model is no such tower; or the embeddings are not (K, D) with the D of the tower, not finite, or
        of length 0.
    """
    texts = getattr(model, "texts", None)
    if texts is None:
        raise InputError(
            f"{type(model).__name__} was not trained with texts: expected an image tower of CLIP or SigLIP, such as "
            "vit_base_patch16_clip_224 with its weights."
        )
    model = nnx.clone(model, arrays=True)
    head: Any = model.head
    dense = head.dense
    if not isinstance(dense, nnx.Linear):
        raise InputError("the classes of this model are texts already: expected the tower that it was made from.")
    width = dense.out_features if texts == "projected" else dense.in_features
    given = np.asarray(embeddings, np.float32)
    if given.ndim != 2 or given.shape[1] != width or not len(given):
        raise InputError(f"embeddings of shape {given.shape}: expected (K, {width}), one row for each class.")
    if not np.isfinite(given).all() or not given.any(1).all():
        raise InputError("embeddings with rows that are zero, NaN or infinite: expected those of the text tower.")
    head.dense = TextClasses(jnp.asarray(given), dense if texts == "projected" else None, scale, bias)
    head.num_classes = len(given)
    model.created_as = None
    model.multi_label = multi_label
    model.class_names = class_names
    return model
