"""TS-CAM: class maps of a vision transformer's patches, times where its class token looks.

Gao et al. 2021, arXiv:2103.14862.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.cam import class_maps
from camjax.models.layers import conv2d
from camjax.models.wsol.method import WsolMethod


class TokenSemanticHead(nnx.Module):
    """A 3x3 convolution whose channels are semantic maps, averaged over space to logits.

    Args:
      num_features: K of the patches' tokens.
      num_classes: C.
      rngs: random keys of the initial kernel, which has a variance of 1 / (27 K), as PyTorch's convolutions.

    Attributes:
      classes: the convolution, in float32.
      kernel, bias: None; see `class_maps`.
      num_classes: C.
      exact_cam: False: maps are the semantic maps times the class token's attention.
    """

    exact_cam = False

    def __init__(self, num_features: int, num_classes: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        self.classes = conv2d(num_features, num_classes, 3, padding=1, kernel_init=init, rngs=rngs)
        self.kernel = None
        self.bias = None
        self.num_classes = num_classes

    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, h, w, K + 1), tokens and attention as in `class_maps` -> (B, C) float32 logits, of the tokens alone."""
        return self.classes(features[..., :-1]).mean((1, 2))

    def class_maps(self, features: jax.Array, class_ids: jax.Array | None = None) -> jax.Array:
        """Semantic maps times the attention of the class token (Gao et al. 2021, eqs. 6 to 8).

        Args:
          features: (..., h, w, K + 1): the patches' tokens after the last LayerNorm, and the attention that the class
            token pays to each patch, averaged over all blocks and heads.
          class_ids: (..., N) integers; an id out of range gives a map of NaN. None for all C classes.

        Returns:
          (..., N, h, w) float32: raw, signed as the semantic maps are.
        """
        flat = features.reshape(-1, *features.shape[-3:])
        maps = self.classes(flat[..., :-1]) * flat[..., -1:].astype(jnp.float32)
        return class_maps(maps.reshape(*features.shape[:-1], self.num_classes), None, class_ids)


class TokenSemanticCoupledMap(WsolMethod):
    """TS-CAM: `TokenSemanticHead` in place of the class token's head.

    Args:
      model: that it becomes a part of, a network in which a class token decides; its head is replaced.
      rngs: random keys.
    """

    takes = "a vision transformer with a class token, as deit_small_patch16_224"

    def __init__(self, model, *, rngs: nnx.Rngs):
        model.head = TokenSemanticHead(model.size.width, model.head.num_classes, rngs=rngs)

    @classmethod
    def fits(cls, model) -> bool:
        """Whether a class token decides, whose attention the network gives."""
        return hasattr(model, "with_attention")
