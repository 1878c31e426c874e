"""DenseNet (Huang et al. 2017, arXiv:1608.06993), in which a layer takes the features of all before it in its block.

BatchNorm and ReLU come before the convolutions, and padding is the same on both sides, as in torchvision's
`densenet121`. Images are normalized with ImageNet's mean and deviation.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import IMAGENET_INPUT, CamModel
from camjax.models.batchnorm import BatchNorm
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import ConvBN, avg_pool, conv2d, relu
from camjax.models.pooling import max_pool
from camjax.models.spec import ModelSpec, WeightsSource, torchvision
from camjax.models.tensor_names import CONV, DENSE, Rule, batchnorm, convbn, layer

# Layers per block of DenseNet-121: Huang et al. 2017, table 1.
DEPTHS = (6, 12, 24, 16)
GROWTH = 32
STEM_FEATURES = 64

# With one pixel less, nothing is left for the last pooling.
MIN_SIZE = 29


class BatchNormReLU(nnx.Module):
    """BatchNorm in float32 and ReLU, before a convolution; other layers normalize the same input for themselves."""

    def __init__(self, features: int, *, dtype, rngs):
        self.bn = BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., K) -> (..., K) in the compute dtype."""
        return relu(self.bn(x)).astype(self.dtype)


class DenseLayer(nnx.Module):
    """A 1x1 and a 3x3 convolution, whose output joins the input (Huang et al. 2017, section 3, DenseNet-B)."""

    def __init__(self, in_features: int, *, dtype, rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.norm = BatchNormReLU(in_features, **options)
        self.conv1 = ConvBN(in_features, 4 * GROWTH, 1, **options)
        self.conv2 = conv2d(4 * GROWTH, GROWTH, 3, padding=1, use_bias=False, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K) -> (B, H, W, K + 32)."""
        return jnp.concatenate([x, self.conv2(self.conv1(self.norm(x)))], axis=-1)


class Transition(nnx.Module):
    """Halves the features by a 1x1 convolution, and each side by average pooling."""

    def __init__(self, in_features: int, *, dtype, rngs):
        self.norm = BatchNormReLU(in_features, dtype=dtype, rngs=rngs)
        self.conv = conv2d(in_features, in_features // 2, 1, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K) -> (B, floor(H / 2), floor(W / 2), K / 2)."""
        return avg_pool(self.conv(self.norm(x)), 2, 2)


class DenseNet121(CamModel):
    """DenseNet-121 with a pooled head. Map: input side / 32, rounded down where other networks round up.

    A BatchNorm and a ReLU follow the last block, so no feature is negative.

    Arguments as in `camjax.create_model`.
    """

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(input_size=(224, 224), stride=32, min_size=MIN_SIZE, dtype=dtype, **IMAGENET_INPUT)
        options = {"dtype": dtype, "rngs": rngs}
        self.stem = ConvBN(3, STEM_FEATURES, 7, 2, padding=3, **options)
        blocks: list[nnx.Dict] = []
        transitions, features = [], STEM_FEATURES
        for depth in DEPTHS:
            if blocks:
                transitions.append(Transition(features, **options))
                features //= 2
            layers = [DenseLayer(features + i * GROWTH, **options) for i in range(depth)]
            # By number from 1, as the weights are named.
            blocks.append(nnx.Dict({f"layer{i}": layer for i, layer in enumerate(layers, 1)}))
            features += depth * GROWTH
        self.blocks, self.transitions = nnx.List(blocks), nnx.List(transitions)
        self.norm = BatchNormReLU(features, **options)
        self.head = PooledHead(features, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, 1024)."""
        x = max_pool(self.stem(x), 3, 2, ((1, 1), (1, 1)))
        for i, layers in enumerate(self.blocks):
            if i:
                x = self.transitions[i - 1](x)
            for number in range(1, len(layers) + 1):
                x = layers[f"layer{number}"](x)
        return self.norm(x)


_LAYER = r"features\.denseblock{}\.denselayer(\d+)\."

# torchvision and timm write the same names, and count the blocks and transitions from 1, the model from 0. The files
# that torchvision publishes are older than its code: they say `norm.1` where it says `norm1`.
TENSOR_NAMES = (
    *convbn(r"features\.conv0", r"features\.norm0", "stem"),
    *(
        rule
        for block in range(4)
        for name, place in ((_LAYER.format(block + 1), rf"blocks.{block}.layer\1"),)
        for rule in (
            *batchnorm(rf"{name}norm\.?1", f"{place}.norm.bn"),
            *convbn(rf"{name}conv\.?1", rf"{name}norm\.?2", f"{place}.conv1"),
            Rule(rf"{name}conv\.?2\.weight", f"{place}.conv2.kernel", CONV),
        )
    ),
    *(
        rule
        for i in range(3)
        for rule in (
            *batchnorm(rf"features\.transition{i + 1}\.norm", f"transitions.{i}.norm.bn"),
            Rule(rf"features\.transition{i + 1}\.conv\.weight", f"transitions.{i}.conv.kernel", CONV),
        )
    ),
    *batchnorm(r"features\.norm5", "norm.bn"),
    *layer("classifier", "head", DENSE),
)

_WEIGHTS = (torchvision("densenet121", "densenet121-a639ec97.pth"), WeightsSource("timm", "densenet121"))

SPECS = (ModelSpec("densenet121", DenseNet121, weights=_WEIGHTS, tensor_names=TENSOR_NAMES),)
