"""VGG-16 (Simonyan and Zisserman 2015, arXiv:1409.1556), and the networks with class activation maps made of it.

- `vgg16` with its fully connected layers, in the form of torchvision's weights.
- `vgg16_gap`, the paper's VGGnet-GAP (Zhou et al. 2016, section 3.1), in the form of the released Caffe weights: a
  3x3 convolution of two groups and a pooled head in place of all that follows conv5_3.
- `vgg16_wsol`, that of the benchmark for weakly supervised localization (Choe et al. 2020), in the form of
  torchvision's weights: the convolution has one group, and there is no dropout. `vgg16_wsol_28x28` lacks the fourth
  pooling (the benchmark's "large feature map").

The layers have Caffe's names.
"""

import dataclasses
import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models import pooling
from camjax.models.base import IMAGENET_INPUT, CamModel, InputRule
from camjax.models.caffe_layers import CAFFE_DEVIATION, CAFFE_INPUT, conv, max_pool
from camjax.models.head import FullyConnectedHead, Pool, PooledHead
from camjax.models.layers import avg_pool, relu
from camjax.models.spec import ModelSpec, WeightsSource, cam_release, torchvision
from camjax.models.tensor_names import CONV, DENSE, layer
from camjax.models.wsol.method import Places

# K_out and number of the 3x3 convolutions of each stage: Simonyan and Zisserman 2015, table 1, column D.
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class _Trunk(CamModel):
    """conv1_1 to conv5_3.

    Args:
      caffe: whether images and pooling follow Caffe (BGR less their mean; sides rounded up) or PyTorch.
      pools: stages that end in pooling.
    """

    def __init__(self, *, caffe: bool = False, pools: tuple[int, ...] = (1, 2, 3, 4), dtype, rngs: nnx.Rngs):
        rule = CAFFE_INPUT if caffe else IMAGENET_INPUT
        super().__init__(input_size=(224, 224), stride=2 ** len(pools), dtype=dtype, **rule)
        self.caffe = caffe
        self.pools = pools
        options = {"dtype": dtype, "rngs": rngs}
        in_features, deviation = 3, CAFFE_DEVIATION if caffe else 1.0
        for stage, (features, repeats) in enumerate(STAGES, 1):
            for i in range(1, repeats + 1):
                layer = conv(in_features, features, 3, padding=1, input_deviation=deviation, **options)
                setattr(self, f"conv{stage}_{i}", layer)
                in_features, deviation = features, 1.0

    def trunk(self, x: jax.Array) -> dict[str, jax.Array]:
        """(B, H, W, 3) normalized images -> the maps after each stage, before and after its pooling.

        Those of stage 3 are "conv3" and "pool3"; the last, "pool5", is (B, h, w, 512).
        """
        maps = {}
        for stage, (_, repeats) in enumerate(STAGES, 1):
            for i in range(1, repeats + 1):
                x = relu(getattr(self, f"conv{stage}_{i}")(x))
            x = maps[f"conv{stage}"] = self.at(f"conv{stage}", x)
            x = maps[f"pool{stage}"] = self.at(f"pool{stage}", self.pool_stage(stage, x))
        return maps

    def pool_stage(self, stage: int, x: jax.Array) -> jax.Array:
        """The pooling at the end of a stage, where it has one."""
        if stage not in self.pools:
            return x
        return max_pool(x, 2, 2) if self.caffe else pooling.max_pool(x, 2, 2)


class VGG16(_Trunk):
    """VGG-16 with its fully connected layers: a classifier of 224 x 224 images, without class activation maps.

    Args:
      pool: only "gap"; see `FullyConnectedHead`.
      num_classes, dtype, rngs: as in `camjax.create_model`.
    """

    cam_variant = "vgg16_gap"

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(pools=(1, 2, 3, 4, 5), dtype=dtype, rngs=rngs)
        self.head = FullyConnectedHead((7, 7), 512, num_classes, pool=pool, dtype=dtype, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, 224, 224, 3) normalized images -> (B, 7, 7, 512)."""
        return self.trunk(x)["pool5"]


class VGG16Gap(_Trunk):
    """VGGnet-GAP. Map: 14 x 14 for 224 x 224, input side / 16. Arguments as in `camjax.create_model`."""

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(caffe=True, dtype=dtype, rngs=rngs)
        self.cam_conv = conv(512, 1024, 3, padding=1, groups=2, dtype=dtype, rngs=rngs)
        self.head = PooledHead(1024, num_classes, pool=pool, dropout=0.5, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, ceil(H / 16), ceil(W / 16), 1024)."""
        return relu(self.cam_conv(self.trunk(x)["pool5"]))


class VGG16Wsol(_Trunk):
    """The benchmark's VGG-16. Map: input side / 16, or / 8.

    With ACoL, poolings are 3 x 3, two more without stride follow the stages that lack one, and an average pooling is in
    the place of conv6. With SPG, the fourth pooling is 3 x 3, and conv6 two convolutions of 512 units.

    Args:
      pools: stages that end in pooling.
      num_classes, pool, dtype, rngs: as in `camjax.create_model`.
    """

    wsol_places = Places(adl=("pool3", "conv4", "conv5"), spg=("pool4", "conv5"))
    conv6: nnx.Conv | nnx.List | None
    head: PooledHead

    def __init__(
        self,
        pools: tuple[int, ...],
        num_classes: int = 1000,
        *,
        pool: Pool = "gap",
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(pools=pools, dtype=dtype, rngs=rngs)
        self.layout = "cam"
        self.conv6 = nnx.data(conv(512, 1024, 3, padding=1, dtype=dtype, rngs=rngs))
        self.head = PooledHead(1024, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, 1024)."""
        *_, last = self.stage_maps(x).values()
        return last

    def stage_maps(self, x: jax.Array) -> dict[str, jax.Array]:
        """The maps of the trunk, and of what follows it."""
        maps = self.trunk(x)
        x = maps["pool5"]
        if self.conv6 is None:
            return {**maps, "conv6": avg_pool(x, 3, 1, "SAME")}
        layers: Iterable = self.conv6 if isinstance(self.conv6, nnx.List) else [self.conv6]
        for conv6 in layers:
            x = relu(conv6(x))
        return {**maps, "conv6": x}

    def pool_stage(self, stage: int, x: jax.Array) -> jax.Array:
        """The pooling at the end of a stage, where it has one."""
        strides = 2 if stage in self.pools else 1
        if self.layout == "acol" or (self.layout == "spg" and (stage, strides) == (4, 2)):
            return pooling.max_pool(x, 3, strides, ((1, 1), (1, 1)))
        return super().pool_stage(stage, x)

    def for_wsol(self, method: str, *, rngs: nnx.Rngs) -> None:
        """See the class."""
        self.layout = method
        if method == "acol":
            self.conv6 = None
        if method == "spg":
            layers = [conv(512, 512, 3, padding=1, dtype=self.dtype, rngs=rngs) for _ in range(2)]
            self.conv6 = nnx.List(layers)
            self.head = PooledHead(512, self.head.num_classes, pool=self.head.pool, rngs=rngs)


# torchvision and the benchmark number the layers of `features`, poolings and ReLUs among them. Without the fourth
# pooling (a map of 28 x 28) the last three numbers are one less; no layer with weights has those numbers otherwise.
_NUMBERS = (("0", "2"), ("5", "7"), ("10", "12", "14"), ("17", "19", "21"), ("2[43]", "2[65]", "2[87]"))

TENSOR_NAMES = (
    *(
        rule
        for stage, numbers in enumerate(_NUMBERS, 1)
        for i, number in enumerate(numbers, 1)
        for rule in layer(rf"features\.{number}", f"conv{stage}_{i}", CONV)
    ),
    *(
        rule
        for number, name in ((0, "fc6"), (3, "fc7"), (6, "fc8"))
        for rule in layer(rf"classifier\.{number}", f"head.{name}", DENSE)
    ),
    *layer("conv6", "conv6", CONV),
    *layer("fc", "head", DENSE),
)

# The mean that the authors of VGG_ILSVRC_16_layers give, in the order R, G, B.
_ILSVRC_INPUT: InputRule = {"mean": (123.68, 116.779, 103.939), "std": (1.0, 1.0, 1.0), "channel_order": "bgr"}

_TORCHVISION = torchvision("vgg16", "vgg16-397923af.pth")
_BACKBONE = dataclasses.replace(_TORCHVISION, backbone_only=True)
_CAFFE = WeightsSource("Caffe", "VGG_ILSVRC_16_layers", "caffemodel")
_CAM = cam_release("VGG16-CAM", "vgg16CAM_train_iter_90000")
_WSOL = WeightsSource("wsolevaluation", "VggCam")

SPECS = (
    ModelSpec(
        "vgg16",
        VGG16,
        weights=(_TORCHVISION, _CAFFE),
        tensor_names=TENSOR_NAMES,
        input_rules={"caffemodel": _ILSVRC_INPUT},
        class_layer="head.fc8",
    ),
    ModelSpec(
        "vgg16_gap",
        VGG16Gap,
        weights=(_CAM, _BACKBONE),
        tensor_names=TENSOR_NAMES,
        input_rules={"pytorch": IMAGENET_INPUT},
        new_layers=("cam_conv", "head"),
    ),
    *(
        ModelSpec(
            name,
            functools.partial(VGG16Wsol, pools),
            weights=(_WSOL, _BACKBONE),
            tensor_names=TENSOR_NAMES,
            new_layers=("conv6", "head"),
        )
        for name, pools in (("vgg16_wsol", (1, 2, 3, 4)), ("vgg16_wsol_28x28", (1, 2, 3)))
    ),
)
