"""Reads the weights of a `.caffemodel` and the mean image of a `.binaryproto`, which are protobuf messages.

The messages are those of Caffe's `src/caffe/proto/caffe.proto`, of which only the fields that hold weights are
described here. Protobuf skips the fields that a description does not have.
"""

import functools
import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from camjax.errors import reading
from camjax.weights.errors import WeightsError, check_weights_file, describe_start

# message -> (field, number, how it is repeated, its type or message).
#
# Numbers are declared as bytes: on the wire, a packed `repeated float` is the bytes of the array, which NumPy takes as
# they are; protobuf would make Python floats of them. Strings are bytes too, since a damaged one is not valid text. A
# V1 layer's type is an enumeration, on the wire an integer.
_MESSAGES = {
    "BlobShape": (("dim", 1, "repeated", "int64"),),
    "BlobProto": (
        ("num", 1, "optional", "int64"),
        ("channels", 2, "optional", "int64"),
        ("height", 3, "optional", "int64"),
        ("width", 4, "optional", "int64"),
        ("data", 5, "repeated", "bytes"),
        ("shape", 7, "optional", "BlobShape"),
        ("double_data", 8, "repeated", "bytes"),
    ),
    "LayerParameter": (
        ("name", 1, "optional", "bytes"),
        ("type", 2, "optional", "bytes"),
        ("blobs", 7, "repeated", "BlobProto"),
    ),
    "V1LayerParameter": (
        ("name", 4, "optional", "bytes"),
        ("type", 5, "optional", "int32"),
        ("blobs", 6, "repeated", "BlobProto"),
    ),
    "NetParameter": (
        ("layers", 2, "repeated", "V1LayerParameter"),
        ("layer", 100, "repeated", "LayerParameter"),
    ),
}

_LEGACY_SHAPE = ("num", "channels", "height", "width")

# Convolution and deconvolution, by the names of LayerParameter and the numbers of V1LayerParameter.LayerType.
_CONVOLUTIONS = (b"Convolution", b"Deconvolution", 4, 39)

# Protobuf's own limit for a message.
_MAX_BYTES = 2**31 - 1

# Of layers, blobs, pieces of data and lengths of axes. The deepest networks have about 2,000 layers with 20 each. In
# memory, a field takes up to 60 times its bytes in the file.
_MAX_FIELDS = 200_000

_MAX_RANK = 32


def read_caffemodel(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the blobs of a trained Caffe network.

    Reads layers of Caffe's present format and of the one before it (V1, `layers`), and blobs with a shape as well as
    with the four legacy dimensions (num, channels, height, width). Of the latter, leading dimensions of 1 are dropped:
    a bias is (K,) and an inner product (K_out, K_in). The filters of a convolution keep all four.

    Args:
      path: a `.caffemodel` in protobuf's binary format.

    Returns:
      Blob i of a layer as `"LAYER.i"`, in the file's order: `"conv1.0"` are the filters of conv1, (K_out,
      K_in / groups, kh, kw) float32, and `"conv1.1"` is its bias, (K_out,); an inner product's `"fc.0"` is
      (K_out, K_in). The arrays are read-only. Layers without blobs are left out. A blob saved as doubles is float64.

    Raises:
      FileNotFoundError: the file does not exist.
      WeightsError: the file is damaged or not a caffemodel, a blob's numbers do not fit its shape, two layers with
        blobs have the same name, or no layer has a blob.
    """
    path, net, start = _parse(path, "NetParameter")
    arrays: dict[str, np.ndarray] = {}
    for layer in (*net.layers, *net.layer):
        for i, blob in enumerate(layer.blobs):
            name = f"{layer.name.decode(errors='replace')}.{i}"
            if name in arrays:
                raise WeightsError(f"{path}: two blobs are named {name[:80]!r}. Rename one of the layers.")
            arrays[name] = _array(path, name, blob, filters=i == 0 and layer.type in _CONVOLUTIONS)
    if not arrays:
        raise WeightsError(
            f"{path}: no layer of this file has weights; it {describe_start(start)}. Give the .caffemodel of a trained "
            "network. If it was written before 2014, Caffe's upgrade_net_proto_binary brings it up to date."
        )
    return arrays


def caffe_layers(path: str | PathLike[str]) -> list[str]:
    """The names of all layers of a `.caffemodel`, those without weights included, in the file's order.

    Raises:
      FileNotFoundError, WeightsError: as `read_caffemodel`.
    """
    _, net, _ = _parse(path, "NetParameter")
    return [layer.name.decode(errors="replace") for layer in (*net.layers, *net.layer)]


def read_mean_binaryproto(path: str | PathLike[str]) -> np.ndarray:
    """Reads the mean image of a training set, as Caffe's `compute_image_mean` writes it.

    Args:
      path: such as `imagenet_mean.binaryproto`: one blob of (1, 3, H, W), channels in the order B, G, R.

    Returns:
      (H, W, 3) float32, channels in the order R, G, B, in 0..255 where the images were.

    Raises:
      FileNotFoundError: the file does not exist.
      WeightsError: the file is damaged, holds no blob, or its blob is not an image of three channels.
    """
    path, blob, start = _parse(path, "BlobProto")
    if not (blob.data or blob.double_data):
        raise WeightsError(
            f"{path}: this is not a mean image: it {describe_start(start)}. Give a .binaryproto of a mean."
        )
    mean = _array(path, "the mean image", blob, filters=False)
    if mean.shape[:-2] not in ((3,), (1, 3)):
        raise WeightsError(f"{path}: a blob of shape {mean.shape}, where a mean image has (1, 3, H, W).")
    if not np.isfinite(mean).all():
        raise WeightsError(f"{path}: the mean image has values that are NaN or infinite. Download or copy it again.")
    blue_green_red = mean.reshape(mean.shape[-3:])
    return np.ascontiguousarray(blue_green_red[::-1].transpose(1, 2, 0), dtype=np.float32)


def _parse(path: str | PathLike[str], kind: str) -> tuple[Path, Any, bytes]:
    """Returns the path, the file's message, and its first bytes."""
    path = check_weights_file(path)
    with path.open("rb") as file:
        start = file.read(32)
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise WeightsError(f"{path}: {size:,} bytes, where a protobuf message has at most {_MAX_BYTES:,}.")
    advice = f"It {describe_start(start)}. If it should be one, download or copy it again."
    with reading(path, "a whole message of Caffe", advice, error=WeightsError):
        data = path.read_bytes()
        if _count_fields(data, kind, 0, len(data)) > _MAX_FIELDS:
            raise WeightsError(f"{path}: more than {_MAX_FIELDS:,} fields. Is the file damaged?")
        return path, _message_classes()[kind].FromString(data), start


def _count_fields(data: bytes, kind: str, position: int, end: int, count: int = 0) -> int:
    """Adds the number of fields of a message, and of those in it, to a count, without building them.

    It stops after `_MAX_FIELDS`, and behind bytes that are no message, about which the parser will speak. Each number
    of a packed field counts, and so do the two ends of a group.
    """
    inner = {number: of for _, number, _, of in _MESSAGES[kind]}
    while position < end and count <= _MAX_FIELDS:
        count += 1
        tag, position = _varint(data, position, end)
        match tag & 7:
            case 0:
                _, position = _varint(data, position, end)
            case 1:
                position += 8
            case 5:
                position += 4
            case 2:
                length, position = _varint(data, position, end)
                of = inner.get(tag >> 3)
                if of in _MESSAGES:
                    count = _count_fields(data, of, position, min(position + length, end), count)
                elif of == "int64":
                    count += length
                position += length
    return count


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """The number of variable length at a position, and the position after it."""
    value = shift = 0
    while position < end:
        byte = data[position]
        value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
        if byte < 128 or shift > 63:
            break
    return value, position


def _array(path: Path, name: str, blob, *, filters: bool) -> np.ndarray:
    """Returns a blob's numbers in its shape, after checking their count."""
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim[: _MAX_RANK + 1])
    else:
        shape = tuple(getattr(blob, field) for field in _LEGACY_SHAPE)
        if not filters:
            while len(shape) > 1 and shape[0] == 1:
                shape = shape[1:]
    chunks, dtype = (blob.double_data, "<f8") if blob.double_data else (blob.data, "<f4")
    # Protobuf joins the pieces of a packed field; writers make one.
    data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    count, rest = divmod(len(data), np.dtype(dtype).itemsize)
    if len(shape) > _MAX_RANK or any(length < 1 for length in shape) or math.prod(shape) != count or rest:
        raise WeightsError(
            f"{path}: {name[:80]} should have the shape {shape}, but has {len(data):,} bytes of numbers. "
            "The file is damaged, or its numbers are neither float32 nor float64."
        )
    return np.frombuffer(data, dtype).reshape(shape)


@functools.cache
def _message_classes() -> dict[str, Any]:
    """The classes of the messages by name, in a private pool: other packages register Caffe's messages too."""
    file = descriptor_pb2.FileDescriptorProto(name="camjax/caffe_weights.proto", package="caffe", syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, label, kind in fields:
            field = described.field.add(name=name, number=number, label=kinds.Label.Value(f"LABEL_{label.upper()}"))
            if kind in _MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}")) for name in _MESSAGES}
