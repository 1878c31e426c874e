"""ConvNeXt (Liu et al. 2022, arXiv:2201.03545).

The definition is torchvision's `convnext_tiny`; stochastic depth, which only training from scratch needs, is left
out. Images are normalized with ImageNet's mean and deviation.

A LayerNorm stands between pooling and dense layer. For the pooled vector p of an image, with the mean m and the
deviation s of its K numbers, it is `(p - m) / s * scale + bias`. Since m and s are two numbers an image, the same
function can be applied to every place of the map instead, and pooling afterwards gives the same vector: the network is
the same, and its features are those that the dense layer weighs. So the mean of a class's map plus its bias is its
logit, as for any other network. The features of other implementations differ by this function.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import CamModel
from camjax.models.conv import conv_general_dilated
from camjax.models.head import Pool, PooledHead, global_pool
from camjax.models.layers import he_normal
from camjax.models.resnet import IMAGENET_MEAN, IMAGENET_STD
from camjax.models.spec import ModelSpec

# (blocks, features) of the stages of ConvNeXt-T: Liu et al. 2022, section 3.
STAGES = ((3, 96), (3, 192), (9, 384), (3, 768))

# What each block's output is multiplied by at first: Liu et al. 2022, appendix A.
LAYER_SCALE = 1e-6

_LayerNorm = functools.partial(nnx.LayerNorm, epsilon=1e-6, dtype=jnp.float32, use_fast_variance=False)


class Block(nnx.Module):
    """A depthwise 7x7 convolution, LayerNorm, two dense layers at every place, a shortcut (Liu et al., figure 4)."""

    def __init__(self, features: int, *, dtype, rngs):
        self.conv = _conv(features, features, 7, padding=3, groups=features, dtype=dtype, rngs=rngs)
        self.norm = _LayerNorm(features, rngs=rngs)
        self.expand = nnx.Linear(features, 4 * features, dtype=dtype, kernel_init=_normal, rngs=rngs)
        self.project = nnx.Linear(4 * features, features, dtype=dtype, kernel_init=_normal, rngs=rngs)
        self.scale = nnx.Param(jnp.full((features,), LAYER_SCALE))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K) -> (B, H, W, K)."""
        y = self.norm(self.conv(x)).astype(self.dtype)
        y = self.project(jax.nn.gelu(self.expand(y), approximate=False))
        return x + y * self.scale[...].astype(self.dtype)


class Downsample(nnx.Module):
    """LayerNorm, and a convolution whose windows lie side by side."""

    def __init__(self, in_features: int, out_features: int, *, dtype, rngs):
        self.norm = _LayerNorm(in_features, rngs=rngs)
        self.conv = _conv(in_features, out_features, 2, 2, dtype=dtype, rngs=rngs)
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, floor(H / 2), floor(W / 2), K_out)."""
        return self.conv(self.norm(x).astype(self.dtype))


class ConvNeXtTiny(CamModel):
    """ConvNeXt-T with a pooled head. Map: input side / 32, rounded down.

    Args:
      num_classes: C.
      pool: "gap" or "gmp"; under "gmp", LayerNorm still takes mean and deviation of the averaged features.
      dtype: compute dtype.
      rngs: random keys.
    """

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(input_size=(224, 224), stride=32, mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=dtype)
        options = {"dtype": dtype, "rngs": rngs}
        in_features = STAGES[0][1]
        self.stem = _conv(3, in_features, 4, 4, **options)
        self.stem_norm = _LayerNorm(in_features, rngs=rngs)
        stages, downsamples = [], []
        for depth, features in STAGES:
            if stages:
                downsamples.append(Downsample(in_features, features, **options))
            stages.append(nnx.List([Block(features, **options) for _ in range(depth)]))
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
    pooled = global_pool(features, "gap")
    mean = pooled.mean(-1)[:, None, None, None]
    deviation = jnp.sqrt(pooled.var(-1) + norm.epsilon)[:, None, None, None]
    return (features.astype(jnp.float32) - mean) / deviation * norm.scale[...] + norm.bias[...]


def _normal(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32, out_sharding=None) -> jax.Array:
    """Normal kernel of deviation 0.02 (Liu et al. 2022, appendix A): He's, rescaled, which is drawn fast."""
    fan_out = math.prod(shape[:-2]) * shape[-1]
    return he_normal(key, shape, dtype) * (0.02 * math.sqrt(fan_out / 2))


def _conv(in_features, out_features, kernel_size, strides=1, *, padding=0, groups=1, dtype, rngs) -> nnx.Conv:
    """A convolution with bias."""
    return nnx.Conv(
        in_features,
        out_features,
        (kernel_size, kernel_size),
        strides,
        padding=padding,
        feature_group_count=groups,
        dtype=dtype,
        kernel_init=_normal,
        conv_general_dilated=conv_general_dilated,
        rngs=rngs,
    )


SPECS = (
    ModelSpec(
        "convnext_tiny",
        ConvNeXtTiny,
        1000,
        "a file of torchvision's or timm's convnext_tiny, given as weights=FILE",
        "camjax.weights.convnext",
    ),
)
