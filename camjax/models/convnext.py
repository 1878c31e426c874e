"""ConvNeXt (Liu et al. 2022, arXiv:2201.03545) and ConvNeXt V2 (Woo et al. 2023, arXiv:2301.00808).

The definitions are torchvision's `convnext_tiny` and timm's `convnextv2_tiny`, whose blocks have global response
normalization and no scale; stochastic depth, which only training from scratch needs, is left out. Images are
normalized with ImageNet's mean and deviation.

The original has a LayerNorm between pooling and dense layer: of the pooled vector p of an image, with the mean m and
the deviation s of its K numbers, `(p - m) / s * scale + bias`. Here the same function, with the m and s of the pooled
vector, is applied to every place of the map before pooling. That gives the same pooled vector and the same logits, and
features that the dense layer weighs directly, so the mean of a class's map plus its bias is its logit. The features of
other implementations lack this function.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import IMAGENET_INPUT, CamModel
from camjax.models.head import Pool, PooledHead, global_pool
from camjax.models.layers import conv2d, exact_gelu, narrow_normal
from camjax.models.spec import ModelSpec, WeightsSource, torchvision
from camjax.models.tensor_names import CONV, DENSE, Rule, layer, layernorm

# (blocks, features) of the stages of ConvNeXt-T: Liu et al. 2022, section 3.
STAGES = ((3, 96), (3, 192), (9, 384), (3, 768))

# What each block's output is multiplied by at first: Liu et al. 2022, appendix A.
LAYER_SCALE = 1e-6

_LayerNorm = functools.partial(nnx.LayerNorm, epsilon=1e-6, dtype=jnp.float32, use_fast_variance=False)


class GlobalResponseNorm(nnx.Module):
    """Each channel times its norm over space, as a share of the mean of all norms (Woo et al. 2023, section 3)."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        del rngs  # nothing is drawn
        self.scale = nnx.Param(jnp.zeros((features,)))
        self.bias = nnx.Param(jnp.zeros((features,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K) -> (B, H, W, K) in the dtype of x."""
        squares = jnp.square(x.astype(jnp.float32)).sum((1, 2))
        # The root's derivative at 0 is infinite: a channel that is 0 everywhere has none.
        norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        shares = norms / (norms.mean(-1, keepdims=True) + 1e-6)
        factors = (1 + self.scale[None] * shares)[:, None, None].astype(x.dtype)
        return x * factors + self.bias[None, None, None].astype(x.dtype)


class Block(nnx.Module):
    """A depthwise 7x7 convolution, LayerNorm, two dense layers at every place, a shortcut (Liu et al., figure 4).

    Args:
      features: K.
      version: 2 for global response normalization between the dense layers, in place of a scale after them.
      dtype, rngs: as in `camjax.create_model`.
    """

    def __init__(self, features: int, version: int, *, dtype, rngs):
        self.conv = conv2d(
            features, features, 7, padding=3, groups=features, kernel_init=narrow_normal, dtype=dtype, rngs=rngs
        )
        self.norm = _LayerNorm(features, rngs=rngs)
        self.expand = nnx.Linear(features, 4 * features, dtype=dtype, kernel_init=narrow_normal, rngs=rngs)
        self.project = nnx.Linear(4 * features, features, dtype=dtype, kernel_init=narrow_normal, rngs=rngs)
        self.response_norm = GlobalResponseNorm(4 * features, rngs=rngs) if version == 2 else None
        self.scale = nnx.Param(jnp.full((features,), LAYER_SCALE)) if version == 1 else None
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K) -> (B, H, W, K)."""
        y = self.norm(self.conv(x)).astype(self.dtype)
        y = exact_gelu(self.expand(y))
        if self.response_norm is not None:
            y = self.response_norm(y)
        y = self.project(y)
        return x + (y if self.scale is None else y * self.scale[None, None, None].astype(self.dtype))


class Downsample(nnx.Module):
    """LayerNorm and a convolution whose windows lie side by side."""

    def __init__(self, in_features: int, out_features: int, *, dtype, rngs):
        self.norm = _LayerNorm(in_features, rngs=rngs)
        self.conv = conv2d(in_features, out_features, 2, 2, kernel_init=narrow_normal, dtype=dtype, rngs=rngs)
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, floor(H / 2), floor(W / 2), K_out)."""
        return self.conv(self.norm(x).astype(self.dtype))


class ConvNeXtTiny(CamModel):
    """ConvNeXt-T with a pooled head. Map: input side / 32, rounded down.

    Args:
      version: 1, or 2 for ConvNeXt V2.
      pool: "gap" or "gmp"; under "gmp", LayerNorm still takes mean and deviation of the averaged features.
      num_classes, dtype, rngs: as in `camjax.create_model`.
    """

    def __init__(
        self, num_classes: int = 1000, *, version: int = 1, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs
    ):
        super().__init__(input_size=(224, 224), stride=32, dtype=dtype, **IMAGENET_INPUT)
        options = {"dtype": dtype, "rngs": rngs}
        in_features = STAGES[0][1]
        self.stem = conv2d(3, in_features, 4, 4, kernel_init=narrow_normal, **options)
        self.stem_norm = _LayerNorm(in_features, rngs=rngs)
        stages: list[nnx.List] = []
        downsamples = []
        for depth, features in STAGES:
            if stages:
                downsamples.append(Downsample(in_features, features, **options))
            stages.append(nnx.List([Block(features, version, **options) for _ in range(depth)]))
            in_features = features
        self.stages, self.downsamples = nnx.List(stages), nnx.List(downsamples)
        self.norm = _LayerNorm(in_features, rngs=rngs)
        self.head = PooledHead(in_features, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, floor(H / 32), floor(W / 32), 768)."""
        x = self.stem_norm(self.stem(x)).astype(self.dtype)
        for i, blocks in enumerate(self.stages):
            if i:
                x = self.downsamples[i - 1](x)
            for block in blocks:
                x = block(x)
        return norm_of_pooled(self.norm, x).astype(self.dtype)


def norm_of_pooled(norm: nnx.LayerNorm, features: jax.Array) -> jax.Array:
    """A LayerNorm's function of the pooled features, applied to the features: `pool(result) == norm(pool(features))`.

    Args:
      norm: of K features.
      features: (B, h, w, K) of any float dtype.

    Returns:
      (B, h, w, K) float32.
    """
    assert norm.scale is not None and norm.bias is not None
    pooled = global_pool(features, "gap")
    mean = pooled.mean(-1)[:, None, None, None]
    deviation = jnp.sqrt(pooled.var(-1) + norm.epsilon)[:, None, None, None]
    scale, bias = (jnp.expand_dims(x[...], range(features.ndim - 1)) for x in (norm.scale, norm.bias))
    return (features.astype(jnp.float32) - mean) / deviation * scale + bias


_TORCHVISION = (
    *layer(r"features\.0\.0", "stem", CONV),
    *layernorm(r"features\.0\.1", "stem_norm"),
    # torchvision numbers the stages and the downsampling between them in turn.
    *(
        rule
        for stage in range(4)
        for block, place in ((rf"features\.{2 * stage + 1}\.(\d+)", rf"stages.{stage}.\1"),)
        for rule in (
            *layer(rf"{block}\.block\.0", f"{place}.conv", CONV),
            *layernorm(rf"{block}\.block\.2", f"{place}.norm"),
            *layer(rf"{block}\.block\.3", f"{place}.expand", DENSE),
            *layer(rf"{block}\.block\.5", f"{place}.project", DENSE),
            Rule(rf"{block}\.layer_scale", f"{place}.scale", squeeze=True),  # (K, 1, 1)
        )
    ),
    *(
        rule
        for i in range(3)
        for rule in (
            *layernorm(rf"features\.{2 * i + 2}\.0", f"downsamples.{i}.norm"),
            *layer(rf"features\.{2 * i + 2}\.1", f"downsamples.{i}.conv", CONV),
        )
    ),
    *layernorm(r"classifier\.0", "norm"),
    *layer(r"classifier\.2", "head", DENSE),
)

_BLOCK, _PLACE = r"stages\.(\d)\.blocks\.(\d+)", r"stages.\1.\2"

_TIMM = (
    *layer(r"stem\.0", "stem", CONV),
    *layernorm(r"stem\.1", "stem_norm"),
    *layer(rf"{_BLOCK}\.conv_dw", f"{_PLACE}.conv", CONV),
    *layernorm(rf"{_BLOCK}\.norm", f"{_PLACE}.norm"),
    *layer(rf"{_BLOCK}\.mlp\.fc1", f"{_PLACE}.expand", DENSE),
    *layer(rf"{_BLOCK}\.mlp\.fc2", f"{_PLACE}.project", DENSE),
    *(
        rule
        for i in range(3)
        for rule in (
            *layernorm(rf"stages\.{i + 1}\.downsample\.0", f"downsamples.{i}.norm"),
            *layer(rf"stages\.{i + 1}\.downsample\.1", f"downsamples.{i}.conv", CONV),
        )
    ),
    *layernorm(r"head\.norm", "norm"),
    *layer(r"head\.fc", "head", DENSE),
)

_SCALE = Rule(rf"{_BLOCK}\.gamma", f"{_PLACE}.scale")
_RESPONSE_NORM = layernorm(rf"{_BLOCK}\.mlp\.grn", f"{_PLACE}.response_norm")

_WEIGHTS = (torchvision("convnext_tiny", "convnext_tiny-983f1562.pth"), WeightsSource("timm", "convnext_tiny"))
_V2_WEIGHTS = (WeightsSource("timm", "convnextv2_tiny", address="hf://timm/convnextv2_tiny.fcmae_ft_in1k"),)

SPECS = (
    ModelSpec("convnext_tiny", ConvNeXtTiny, weights=_WEIGHTS, tensor_names=(*_TORCHVISION, *_TIMM, _SCALE)),
    ModelSpec(
        "convnextv2_tiny",
        functools.partial(ConvNeXtTiny, version=2),
        weights=_V2_WEIGHTS,
        tensor_names=(*_TIMM, *_RESPONSE_NORM),
    ),
)
