"""Caffe's networks as prototxts of ours, and `.caffemodel` files of random weights for them.

Layers and their names follow the released definitions: BVLC's AlexNet and GoogLeNet, Lin et al.'s NIN, and the CAM
networks of Zhou et al. 2016 (AlexNet+ pools before it normalizes, BVLC's AlexNet after). Where a released CAM
network pools the 14x14 map of a 224x224 image, these pool globally, so that small images serve as well.
"""

import math
from dataclasses import dataclass, field

import numpy as np

# Szegedy et al. 2015, table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


@dataclass
class Net:
    """A network as it is written, layer by layer: its prototxt and the shapes of its weights.

    Every method but `prototxt` appends a layer behind `bottom` (the last one if None) and returns its top's name.
    """

    height: int
    width: int
    layers: list[str] = field(default_factory=list)
    # layer -> (type, shape of its weights); its bias has the length of their first axis.
    weights: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    # top -> (channels, height, width)
    tops: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    last: str = "data"

    def __post_init__(self):
        self.tops["data"] = (3, self.height, self.width)

    @property
    def prototxt(self) -> str:
        start = f'input: "data"\ninput_dim: 1\ninput_dim: 3\ninput_dim: {self.height}\ninput_dim: {self.width}\n'
        return start + "".join(self.layers)

    def layer(self, name, kind, shape, bottoms, parameters="", top=None):
        lines = [f'name: "{name}"', f'type: "{kind}"', *(f'bottom: "{bottom}"' for bottom in bottoms)]
        top = name if top is None else top
        self.layers.append(f'layer {{ {" ".join(lines)} top: "{top}" {parameters} }}\n')
        self.tops[top], self.last = shape, top
        return top

    def relu(self, name):
        return self.layer(name, "ReLU", self.tops[self.last], [self.last], top=self.last)

    def conv(self, name, outputs, kernel, stride=1, pad=0, group=1, bottom=None, relu=None):
        bottom = bottom or self.last
        channels, height, width = self.tops[bottom]
        self.weights[name] = ("Convolution", (outputs, channels // group, kernel, kernel))
        shape = (outputs, *((side + 2 * pad - kernel) // stride + 1 for side in (height, width)))
        numbers = f"num_output: {outputs} kernel_size: {kernel} stride: {stride} pad: {pad} group: {group}"
        self.layer(name, "Convolution", shape, [bottom], f"convolution_param {{ {numbers} }}")
        return self.relu(relu or f"relu_{name}")

    def max_pool(self, name, kernel, stride, pad=0, bottom=None):
        bottom = bottom or self.last
        channels, height, width = self.tops[bottom]
        shape = (channels, *(math.ceil((side + 2 * pad - kernel) / stride) + 1 for side in (height, width)))
        numbers = f"pool: MAX kernel_size: {kernel} stride: {stride} pad: {pad}"
        return self.layer(name, "Pooling", shape, [bottom], f"pooling_param {{ {numbers} }}")

    def global_average(self, name):
        shape = (self.tops[self.last][0], 1, 1)
        return self.layer(name, "Pooling", shape, [self.last], "pooling_param { pool: AVE global_pooling: true }")

    def lrn(self, name):
        numbers = "local_size: 5 alpha: 0.0001 beta: 0.75"
        return self.layer(name, "LRN", self.tops[self.last], [self.last], f"lrn_param {{ {numbers} }}")

    def dense(self, name, outputs):
        self.weights[name] = ("InnerProduct", (outputs, math.prod(self.tops[self.last])))
        parameters = f"inner_product_param {{ num_output: {outputs} }}"
        return self.layer(name, "InnerProduct", (outputs, 1, 1), [self.last], parameters)

    def inception(self, name):
        one, three_reduce, three, five_reduce, five, projection = INCEPTIONS[name.removeprefix("inception_")]
        below = self.last
        branches = [self.conv(f"{name}/1x1", one, 1, bottom=below)]
        self.conv(f"{name}/3x3_reduce", three_reduce, 1, bottom=below)
        branches.append(self.conv(f"{name}/3x3", three, 3, pad=1))
        self.conv(f"{name}/5x5_reduce", five_reduce, 1, bottom=below)
        branches.append(self.conv(f"{name}/5x5", five, 5, pad=2))
        self.max_pool(f"{name}/pool", 3, 1, pad=1, bottom=below)
        branches.append(self.conv(f"{name}/pool_proj", projection, 1))
        shape = (sum(self.tops[branch][0] for branch in branches), *self.tops[below][1:])
        return self.layer(f"{name}/output", "Concat", shape, branches)


def alexnet(size, classes):
    net = alexnet_body(*size)
    net.max_pool("pool5", 3, 2)
    return with_fully_connected(net, classes)


def alexnet_body(height, width):
    """BVLC's AlexNet to conv5."""
    net = Net(height, width)
    net.conv("conv1", 96, 11, stride=4)
    net.lrn("norm1")
    net.max_pool("pool1", 3, 2)
    net.conv("conv2", 256, 5, pad=2, group=2)
    net.lrn("norm2")
    net.max_pool("pool2", 3, 2)
    net.conv("conv3", 384, 3, pad=1)
    net.conv("conv4", 384, 3, pad=1, group=2)
    net.conv("conv5", 256, 3, pad=1, group=2)
    return net


def alexnet_gap(size, classes):
    return with_cam(alexnet_body(*size), classes)


def alexnet_star_gap(size, classes):
    net = Net(*size)
    net.conv("conv1", 96, 11, stride=4)
    net.max_pool("pool1", 3, 2)
    net.lrn("norm1")
    net.conv("conv2", 256, 5, pad=2, group=2)
    net.max_pool("pool2", 3, 2)
    net.lrn("norm2")
    net.conv("conv3", 384, 3, pad=1)
    net.conv("conv4", 384, 3, pad=1, group=2)
    net.conv("conv5", 384, 3, pad=1, group=2)
    net.max_pool("pool5", 3, 1)
    net.conv("conv6", 512, 3, pad=1, group=2)
    net.conv("conv7", 512, 3, pad=1, group=2, relu="features")
    net.global_average("pool8_global")
    net.dense("fc9", classes)
    return net


def vgg16_body(height, width):
    """VGG-16 to conv5_3."""
    net = Net(height, width)
    for block, (outputs, convolutions) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        if block > 1:
            net.max_pool(f"pool{block - 1}", 2, 2)
        for i in range(1, convolutions + 1):
            net.conv(f"conv{block}_{i}", outputs, 3, pad=1)
    return net


def vgg16(size, classes):
    net = vgg16_body(*size)
    net.max_pool("pool5", 2, 2)
    return with_fully_connected(net, classes)


def vgg16_gap(size, classes):
    return with_cam(vgg16_body(*size), classes)


def googlenet_body(height, width):
    """GoogLeNet to inception_4e."""
    net = Net(height, width)
    net.conv("conv1/7x7_s2", 64, 7, stride=2, pad=3)
    net.max_pool("pool1/3x3_s2", 3, 2)
    net.lrn("pool1/norm1")
    net.conv("conv2/3x3_reduce", 64, 1)
    net.conv("conv2/3x3", 192, 3, pad=1)
    net.lrn("conv2/norm2")
    net.max_pool("pool2/3x3_s2", 3, 2)
    for name in ("3a", "3b"):
        net.inception(f"inception_{name}")
    net.max_pool("pool3/3x3_s2", 3, 2)
    for name in ("4a", "4b", "4c", "4d", "4e"):
        net.inception(f"inception_{name}")
    return net


def googlenet(size, classes):
    net = googlenet_body(*size)
    net.max_pool("pool4/3x3_s2", 3, 2)
    for name in ("5a", "5b"):
        net.inception(f"inception_{name}")
    net.global_average("pool5/7x7_s1")
    net.dense("loss3/classifier", classes)
    return net


def googlenet_gap(size, classes):
    return with_cam(googlenet_body(*size), classes)


def with_fully_connected(net, classes):
    """fc6, fc7 and fc8 behind a network."""
    for name in ("fc6", "fc7"):
        net.dense(name, 4096)
        net.relu(f"relu_{name}")
    net.dense("fc8", classes)
    return net


def with_cam(net, classes):
    """CAM_conv, global average pooling and CAM_fc behind a network: "CAM_relu" are the features."""
    net.conv("CAM_conv", 1024, 3, pad=1, group=2, relu="CAM_relu")
    net.global_average("CAM_pool")
    net.dense("CAM_fc", classes)
    return net


def nin(size, classes):
    net = Net(*size)
    net.conv("conv1", 96, 11, stride=4)
    net.conv("cccp1", 96, 1)
    net.conv("cccp2", 96, 1)
    net.max_pool("pool0", 3, 2)
    net.conv("conv2", 256, 5, pad=2)
    net.conv("cccp3", 256, 1)
    net.conv("cccp4", 256, 1)
    net.max_pool("pool2", 3, 2)
    net.conv("conv3", 384, 3, pad=1)
    net.conv("cccp5", 384, 1)
    net.conv("cccp6", 384, 1)
    net.max_pool("pool3", 3, 2)
    net.conv("conv4-1024", 1024, 3, pad=1)
    net.conv("cccp7-1024", 1024, 1)
    net.conv("cccp8-1024", classes, 1, relu="features")
    net.global_average("pool4")
    return net


def random_weights(net: Net, seed: int) -> dict[str, np.ndarray]:
    """ "LAYER.0" and "LAYER.1" -> weights and biases, of a scale that keeps signals at that of the pixels."""
    random = np.random.default_rng(seed)
    arrays = {}
    for name, (_, shape) in net.weights.items():
        scale = math.sqrt(2 / math.prod(shape[1:]))
        arrays[f"{name}.0"] = random.standard_normal(shape, np.float32) * np.float32(scale)
        arrays[f"{name}.1"] = random.standard_normal(shape[0], np.float32) * np.float32(5)
    return arrays


# The wire format of protobuf (protobuf.dev/programming-guides/encoding), and the field numbers of caffe.proto.


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def integer(number: int, value: int) -> bytes:
    """A field of a varint."""
    return varint(number << 3) + varint(value)


def message(number: int, *parts: bytes) -> bytes:
    """A field of bytes: a string, a message, or packed numbers."""
    content = b"".join(parts)
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array: np.ndarray, *, legacy: bool = False) -> bytes:
    """The content of a BlobProto, of float32 or float64."""
    if legacy:
        shape = (1,) * (4 - array.ndim) + array.shape
        sizes = b"".join(integer(number, length) for number, length in enumerate(shape, 1))
    else:
        sizes = message(7, message(1, *map(varint, array.shape)))
    return sizes + message(8 if array.dtype == np.float64 else 5, array.astype(array.dtype.newbyteorder("<")).tobytes())


V1_TYPES = {"Convolution": 4, "InnerProduct": 14}


def caffemodel(net: Net, arrays: dict[str, np.ndarray], *, v1: bool = False) -> bytes:
    """A NetParameter, in the present format or the one before it, whose blobs have four dimensions."""
    parts = [message(1, b"random")]
    for name, (kind, _) in net.weights.items():
        weights = [blob(arrays[f"{name}.{i}"], legacy=v1) for i in range(2)]
        if v1:
            head = (message(4, name.encode()), integer(5, V1_TYPES[kind]))
            parts.append(message(2, *head, *(message(6, content) for content in weights)))
        else:
            head = (message(1, name.encode()), message(2, kind.encode()))
            parts.append(message(100, *head, *(message(7, content) for content in weights)))
    return b"".join(parts)
