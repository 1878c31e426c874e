"""Names of the weights of Caffe's networks.

The released files are

- GoogLeNet-CAM, VGG16-CAM and AlexNet+-CAM (Zhou et al. 2016), for ImageNet's 1000 classes and Places' 205;
- bvlc_alexnet and bvlc_googlenet of Caffe's model zoo; nin_imagenet (Lin et al. 2014); VGG_ILSVRC_16_layers
  (Simonyan and Zisserman 2015).

One table serves them all, for the models have Caffe's names and no two of these files have one name for two things.
Not among them is bvlc_reference_caffenet: its layers have AlexNet's names and another order.
"""

from camjax.weights.names import CONV, DENSE, Rule


def _layer(pattern: str, place: str, axes: tuple[int, ...]) -> tuple[Rule, ...]:
    """The rules of a layer with weights and bias, which `read_caffemodel` names as blobs 0 and 1 of the layer."""
    return Rule(rf"{pattern}\.0", f"{place}.kernel", axes), Rule(rf"{pattern}\.1", f"{place}.bias")


TABLE = (
    # NIN's last three names end in the width that its authors gave them, "conv4-1024" to "cccp8-1024".
    *_layer(r"(conv\d|conv\d_\d|cccp\d)(?:-1024)?", r"\1", CONV),
    *_layer("conv1/7x7_s2", "conv1", CONV),
    *_layer("conv2/3x3_reduce", "conv2_reduce", CONV),
    *_layer("conv2/3x3", "conv2", CONV),
    *_layer(r"inception_(\d[a-e])/(\dx\d|\dx\d_reduce)", r"inception_\1.b\2", CONV),
    *_layer(r"inception_(\d[a-e])/pool_proj", r"inception_\1.pool_proj", CONV),
    *_layer("CAM_conv", "cam_conv", CONV),
    *_layer("(?:CAM_fc|fc9|loss3/classifier)", "head", DENSE),
    *_layer("(fc[678])", r"head.\1", DENSE),
    # GoogLeNet's two auxiliary classifiers, which only training uses.
    Rule(r"loss[12]/.*", None),
)

# Where a network of the registry takes images in another way until it has weights of Caffe's. VGG_ILSVRC_16_layers: the
# mean that its authors give, in the order R, G, B.
INPUT_RULES = {"vgg16": {"mean": (123.68, 116.779, 103.939), "channel_order": "bgr"}}
