"""What holds for every network of the registry, from its shapes alone: nothing is computed.

What maps have to do with logits is in `test_identity.py`; that logits are those of other implementations, in the parity
tests.
"""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import NAMES, TOKENS, cut

import camjax
from camjax.models import CamModel, PooledHead, model_spec, vit, vit_blocks
from camjax.models.caffe_layers import CAFFE_NAMES
from camjax.models.head import FullyConnectedHead, MapHead
from camjax.models.shapes import model_shapes
from camjax.models.tensor_names import CONV, DENSE
from camjax.models.vit_heads import QueryHead, TokenHead

# Parameters for 1000 classes. Where they are not published, (K_in / groups * k * k + 1) * K_out of each layer is put in
# place of what is removed from the original.
CONV_OF_512 = (512 * 9 + 1) * 1024
DENSE_OF_1024 = (1024 + 1) * 1000
ALEXNET_CONVS = 60_965_224 - (9216 + 1) * 4096 - (4096 + 1) * 4096 - (4096 + 1) * 1000
VGG16_CONVS = 138_357_544 - (25088 + 1) * 4096 - (4096 + 1) * 4096 - (4096 + 1) * 1000
INCEPTION_5A = 833 * (256 + 160 + 32 + 128) + (160 * 9 + 1) * 320 + (32 * 25 + 1) * 128
INCEPTION_5B = 833 * (384 + 192 + 48 + 128) + (192 * 9 + 1) * 384 + (48 * 25 + 1) * 128
GOOGLENET_TO_4E = 6_998_552 - INCEPTION_5A - INCEPTION_5B - DENSE_OF_1024
STAR_CONVS = (192 * 9 + 1) * (384 - 256) + (192 * 9 + 1) * 512 + (256 * 9 + 1) * 512
WSOL_CONVS = (768 * 9 + 1) * 1024 + (1024 * 9 + 1) * 1024
INCEPTION_V3_TO_6E = 8_965_856

# name: parameters as torchvision, timm (Lite), Caffe's pages and the papers state them, side of the input in pixels,
# and the shape of its features.
FACTS = {
    "alexnet": (60_965_224, 227, (6, 6, 256)),
    "alexnet_gap": (ALEXNET_CONVS + (128 * 9 + 1) * 1024 + DENSE_OF_1024, 227, (13, 13, 1024)),
    "alexnet_star_gap": (ALEXNET_CONVS + STAR_CONVS + (512 + 1) * 1000, 227, (11, 11, 512)),
    "convnext_tiny": (28_589_128, 224, (7, 7, 768)),
    "convnextv2_tiny": (28_635_496, 224, (7, 7, 768)),
    "deit3_base_patch16_224": (86_585_320, 224, (14, 14, 768)),
    "deit3_medium_patch16_224": (38_849_512, 224, (14, 14, 512)),
    "deit3_small_patch16_224": (22_059_496, 224, (14, 14, 384)),
    "deit_base_distilled_patch16_224": (87_338_192, 224, (14, 14, 768)),
    "deit_base_patch16_224": (86_567_656, 224, (14, 14, 768)),
    "deit_small_distilled_patch16_224": (22_436_432, 224, (14, 14, 384)),
    "deit_small_patch16_224": (22_050_664, 224, (14, 14, 384)),
    "deit_tiny_distilled_patch16_224": (5_910_800, 224, (14, 14, 192)),
    "deit_tiny_patch16_224": (5_717_416, 224, (14, 14, 192)),
    "densenet121": (7_978_856, 224, (7, 7, 1024)),
    "efficientnet_lite0": (4_652_008, 224, (7, 7, 1280)),
    "efficientnet_lite1": (5_416_680, 240, (8, 8, 1280)),
    "efficientnet_lite2": (6_092_072, 260, (9, 9, 1280)),
    "efficientnet_lite3": (8_197_096, 280, (9, 9, 1280)),
    "efficientnet_lite4": (13_006_568, 300, (10, 10, 1280)),
    "efficientnet_v2_s": (21_458_488, 384, (12, 12, 1280)),
    "googlenet": (6_998_552, 224, (7, 7, 1024)),
    "googlenet_gap": (GOOGLENET_TO_4E + (416 * 9 + 1) * 1024 + DENSE_OF_1024, 224, (14, 14, 1024)),
    "inception_v3": (23_834_568, 299, (8, 8, 2048)),
    "inception_v3_wsol": (INCEPTION_V3_TO_6E + WSOL_CONVS + DENSE_OF_1024, 224, (14, 14, 1024)),
    "inception_v3_wsol_28x28": (INCEPTION_V3_TO_6E + WSOL_CONVS + DENSE_OF_1024, 224, (28, 28, 1024)),
    "mobilenet_v2": (3_504_872, 224, (7, 7, 1280)),
    "mobilenet_v3_large": (5_483_032, 224, (7, 7, 1280)),
    "mobilenet_v3_small": (2_542_856, 224, (7, 7, 1024)),
    "mobilenetv3_large_100": (5_483_032, 224, (7, 7, 1280)),
    "mobilenetv3_small_100": (2_542_856, 224, (7, 7, 1024)),
    "nin": (7_595_176, 224, (6, 6, 1000)),
    "regnety_016": (11_202_430, 224, (7, 7, 888)),
    "resnet101": (44_549_160, 224, (7, 7, 2048)),
    "resnet152": (60_192_808, 224, (7, 7, 2048)),
    "resnet18": (11_689_512, 224, (7, 7, 512)),
    "resnet34": (21_797_672, 224, (7, 7, 512)),
    "resnet50": (25_557_032, 224, (7, 7, 2048)),
    "resnet50_wsol": (25_557_032, 224, (14, 14, 2048)),
    "resnet50_wsol_28x28": (25_557_032, 224, (28, 28, 2048)),
    "resnext50_32x4d": (25_028_904, 224, (7, 7, 2048)),
    "small_gap": (138_498, 64, (16, 16, 128)),
    "squeezenet1_1": (1_235_496, 224, (13, 13, 1000)),
    "swin_tiny_patch4_window7_224": (28_288_354, 224, (7, 7, 768)),
    "tf_efficientnetv2_s": (21_458_488, 300, (10, 10, 1280)),
    "vgg16": (138_357_544, 224, (7, 7, 512)),
    "vgg16_gap": (VGG16_CONVS + (256 * 9 + 1) * 1024 + DENSE_OF_1024, 224, (14, 14, 1024)),
    "vgg16_wsol": (VGG16_CONVS + CONV_OF_512 + DENSE_OF_1024, 224, (14, 14, 1024)),
    "vgg16_wsol_28x28": (VGG16_CONVS + CONV_OF_512 + DENSE_OF_1024, 224, (28, 28, 1024)),
    "vit_base_patch14_dinov2": (88_116_712, 518, (37, 37, 768)),
    "vit_base_patch14_reg4_dinov2": (88_119_016, 518, (37, 37, 768)),
    "vit_base_patch16_224": (86_567_656, 224, (14, 14, 768)),
    "vit_base_patch16_avg_224": (86_567_656, 224, (14, 14, 768)),
    "vit_base_patch16_clip_224": (86_193_152, 224, (14, 14, 768)),
    "vit_base_patch16_clip_quickgelu_224": (86_193_152, 224, (14, 14, 768)),
    "vit_base_patch16_siglip_224": (93_653_224, 224, (14, 14, 768)),
    "vit_base_patch16_siglip_gap_224": (86_566_120, 224, (14, 14, 768)),
    "vit_base_patch32_224": (88_224_232, 224, (7, 7, 768)),
    "vit_base_patch32_avg_224": (88_224_232, 224, (7, 7, 768)),
    "vit_base_patch32_clip_224": (87_849_728, 224, (7, 7, 768)),
    "vit_base_patch32_clip_quickgelu_224": (87_849_728, 224, (7, 7, 768)),
    "vit_betwixt_patch16_reg4_gap_256": (60_398_440, 256, (16, 16, 640)),
    "vit_little_patch16_reg4_gap_256": (22_516_008, 256, (16, 16, 320)),
    "vit_medium_patch16_reg4_gap_256": (38_881_768, 256, (16, 16, 512)),
    "vit_small_patch14_dinov2": (22_825_192, 518, (37, 37, 384)),
    "vit_small_patch14_reg4_dinov2": (22_826_344, 518, (37, 37, 384)),
    "vit_small_patch16_224": (22_050_664, 224, (14, 14, 384)),
    "vit_small_patch16_avg_224": (22_050_664, 224, (14, 14, 384)),
    "vit_small_patch32_224": (22_878_952, 224, (7, 7, 384)),
    "vit_small_patch32_avg_224": (22_878_952, 224, (7, 7, 384)),
    "vit_tiny_patch16_224": (5_717_416, 224, (14, 14, 192)),
    "vit_tiny_patch16_avg_224": (5_717_416, 224, (14, 14, 192)),
    "vit_wee_patch16_reg1_gap_256": (13_422_568, 256, (16, 16, 256)),
    "wide_resnet50_2": (68_883_240, 224, (7, 7, 2048)),
}
CLASSIFIERS = {"alexnet": "alexnet_gap", "vgg16": "vgg16_gap"}  # and their variants with maps, if any
PLAIN = r"(?:vit|deit)_(tiny|small|base)(?:_distilled)?_(patch\d+)_224"  # transformers whose tokens could be averaged
CLASSIFIERS |= {
    name: match.expand(r"vit_\1_\2_avg_224") if (match := re.fullmatch(PLAIN, name)) else None for name in TOKENS
}
OF_CAFFE = {*("alexnet", "alexnet_gap", "alexnet_star_gap", "vgg16_gap", "googlenet", "googlenet_gap", "nin")}

# The smallest side of an image is the stride, but for these.
SMALLEST = {"alexnet": 23, "alexnet_gap": 23, "alexnet_star_gap": 55, "nin": 39, "densenet121": 29}
SMALLEST |= {"squeezenet1_1": 17, "inception_v3": 75, "inception_v3_wsol": 16, "inception_v3_wsol_28x28": 16}

# Cells in the width of the map of an image as narrow as that are one, but for these: AlexNet's last pooling, before its
# dense layers, leaves none.
NARROWEST = {"alexnet": 0, "inception_v3_wsol_28x28": 2}

DEPTHS = {size.width: size.depth for size in vit_blocks.SIZES.values()}  # of transformers
WITH_STAGES = {"convnext", "densenet", "efficientnet_lite", "efficientnet_v2", "mobilenet", "mobilenet_v3", "regnet"}
WITH_STAGES |= {"resnet", "swin"}

every_network = pytest.mark.parametrize("name", NAMES)


@functools.cache
def abstract(name):
    """The network without its weights; of a transformer two blocks, because all are alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vit, "SIZES", {key: size._replace(depth=2) for key, size in vit_blocks.SIZES.items()})
        return model_shapes(name)


@functools.cache
def shallow(name):
    """The same with one block in each stage: its features have the same shape."""
    model = abstract(name)
    if type(model).__module__.rpartition(".")[2] in WITH_STAGES:
        with pytest.MonkeyPatch.context() as patch:
            cut(patch, 4)
            model = model_shapes(name)
    else:
        model = nnx.clone(model)
    model.eval()  # half of the time to trace goes into new statistics of BatchNorm otherwise
    return model


def num_parameters(model):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def features_of(model, height, width):
    """Shape of the features of one image."""
    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.uint8)
    return jax.eval_shape(lambda model, images: model.features(images), model, images).shape[1:]


@functools.cache
def places(name) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter and statistic by its place."""
    return {
        ".".join(map(str, path)): variable.shape
        for path, variable in nnx.iter_graph(abstract(name))
        if isinstance(variable, nnx.Param | nnx.BatchStat)
    }


def tables_of(name):
    """Tables of the names of the network's tensors."""
    spec = model_spec(name)
    in_caffemodels = any(source.format == "caffemodel" for source in spec.weights)
    return [spec.tensor_names, CAFFE_NAMES] if in_caffemodels else [spec.tensor_names]


@functools.cache
def places_of_rules(rules):
    """(rule, its places in all networks with that table of names) of each rule that has a place."""
    with_table = [name for name in NAMES if rules in tables_of(name)]
    found = set().union(*(places(name) for name in with_table))
    patterns = [(rule, re.compile(re.sub(r"\\\\(\d)", ".+", re.escape(rule.place)))) for rule in rules if rule.place]
    return [(rule, {place for place in found if pattern.fullmatch(place)}) for rule, pattern in patterns]


def test_the_registry_is_complete():
    assert sorted(FACTS) == NAMES


@every_network
def test_parameters_input_and_features(name):
    parameters, side, shape = FACTS[name]
    model = abstract(name)
    left_out = 0
    if isinstance(model, vit.VisionTransformer):
        assert len(model.blocks) == 2
        left_out = (DEPTHS[model.size.width] - 2) * num_parameters(model.blocks[1])
    assert num_parameters(model) + left_out == parameters
    assert model.input_size == (side, side)
    # One trace for two facts: an image of this height, as narrow as the network takes it, has a map.
    height, width, features = features_of(shallow(name), side, model.min_size)
    assert (height, width) == (shape[0], NARROWEST.get(name, 1))
    assert features == shape[2] or name == "densenet121"  # whose number of features grows with the depth
    assert model.created_as == {"name": name, "num_classes": model_spec(name).num_classes, "pool": "gap"}


@every_network
def test_the_contract_of_models(name):
    """`head` has a kernel (K, C), or none and its features are the maps, or there are no maps."""
    model, num_features = abstract(name), FACTS[name][2][2]
    # So that what test_identity.py shows of a family, computing, holds for each network of it.
    assert type(model).__call__ is CamModel.__call__ and type(model).features is CamModel.features
    assert type(model.head) in (PooledHead, MapHead, FullyConnectedHead, TokenHead, QueryHead)
    assert model.exact_cam is (name not in CLASSIFIERS)
    if name in CLASSIFIERS:
        assert not hasattr(model.head, "kernel")
        assert getattr(model, "cam_variant", None) == CLASSIFIERS[name]
    elif model.head.kernel is None:
        assert model.head.bias is None and num_features == model.head.num_classes
    else:
        assert model.head.kernel.shape == (num_features, model.head.num_classes)
    assert (model.channel_order == "bgr") is (name in OF_CAFFE)


@every_network
def test_the_mode_reaches_every_layer(name):
    """In inference, BatchNorm takes its running statistics and leaves them, and dropout does nothing."""
    for _, module in nnx.iter_modules(shallow(name)):
        assert getattr(module, "use_running_average", True) and getattr(module, "deterministic", True)
    modules = [module for _, module in nnx.iter_modules(abstract(name))]
    assert not any(getattr(module, "use_running_average", False) for module in modules)


@every_network
def test_an_image_below_the_smallest_is_an_error(name):
    """`test_parameters_input_and_features` shows that the smallest has a map."""
    model = shallow(name)
    side = model.min_size
    assert side == SMALLEST.get(name, model.stride)
    if name in CLASSIFIERS:
        return
    with pytest.raises(ValueError, match=f"at least {side} x {side} pixels"):
        camjax.cam_fn(model, np.zeros((1, side, side - 1, 3), np.uint8))
    if name in ("alexnet_gap", "alexnet_star_gap", "nin"):
        assert features_of(model, side, side - 1)[1] == 0


@every_network
def test_the_table_of_names_is_complete_both_ways(name):
    """Each place of the model has a rule for its rank, and each rule has a place in a network with that table."""
    spec, found = model_spec(name), places(name)
    assert (f"{spec.class_layer}.kernel" in found) or abstract(name).head.kernel is None
    axes = {place: set() for place in found}
    for rules in tables_of(name):
        for rule, reached in places_of_rules(rules):
            assert reached, rule
            for place in reached & found.keys():
                axes[place].add(rule.axes)
    if spec.tensor_names:
        for place, shape in found.items():
            assert {4: CONV, 3: None, 2: DENSE, 1: None}[len(shape)] in axes[place], place


@every_network
def test_where_weights_come_from(name):
    spec = model_spec(name)
    assert spec.name == name and spec.module is None
    for layer in spec.new_layers:
        assert any(f"{place}.".startswith(f"{layer}.") for place in places(name)) or layer == "head"
    assert bool(spec.weights) == bool(spec.tensor_names) == (name != "small_gap")
    words, own = spec.weights_in_words(), [source for source in spec.weights if not source.backbone_only]
    assert len(spec.short_names) == sum(source.address is not None for source in spec.weights)
    for source in spec.weights:
        assert (source.title in words) is not source.backbone_only
        assert source.address is None or source.address.startswith(("https://", "http://", "hf://"))
    if spec.packaged:
        assert spec.packaged.packaged().is_file()
        assert spec.packaged.packaged().name.split("-")[1] == name.removeprefix("efficientnet_")
    else:
        with pytest.raises(ValueError, match=re.escape(f"load_model({name!r})")) as caught:
            camjax.load_model(name)
        assert words in str(caught.value) and f"create_model({name!r})" in str(caught.value)
        assert spec.weights_in_words(backbone_only=True) in str(caught.value)
        assert all(source.address in str(caught.value) for source in own if source.address)


@every_network
def test_the_guide_has_its_weights(name):
    guide = Path(camjax.__file__).parents[1].joinpath("docs", "models.md").read_text()
    family, _, variant = re.fullmatch(r"(resnet|efficientnet_lite)?(()\d+|.+)", name).groups()
    assert re.search(rf"`{name}`", guide) or (family and re.search(rf"`{family}\d+`.*`{variant}\d*`", guide))
    for source in model_spec(name).weights:
        if source.address:
            assert source.address.rpartition("/")[2] in guide


def test_packaged_weights_are_those_of_the_lites():
    assert [name for name in NAMES if model_spec(name).packaged] == [
        f"efficientnet_lite{variant}" for variant in range(3)
    ]


def test_heads_without_a_kernel():
    assert {name for name in FACTS if isinstance(abstract(name).head, MapHead)} == {"nin", "squeezenet1_1"}
