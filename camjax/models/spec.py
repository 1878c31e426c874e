"""What the registry knows of a network: how to build it, and where trained weights of it are published."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from camjax.models.base import CamModel, InputRule
from camjax.models.tensor_names import Table

FileFormat = Literal["pytorch", "caffemodel"]


@dataclass(frozen=True)
class WeightsSource:
    """Where trained weights of a network come from.

    Attributes:
      publisher: such as "torchvision"; None if nobody publishes them, but files of this kind can be read.
      name: the publisher's name of the network, or of its file without suffix.
      format: "pytorch" for tensors with PyTorch's names, in a file of any kind that has names; or "caffemodel".
      data: the data set that they were trained on.
      address: of a file of them, `https://...`, `http://...` or `hf://...`, if one is known.
      other_address: of the same file, for when the first one is gone.
      short_name: for `load_model(..., weights=SHORT_NAME)` and `--weights`, of a file with an address; None for the
        publisher's.
      num_classes: C of the file; None for the network's default.
      packaged: gives the path of the file if a pip package has it that camjax, or its extra `weights`, requires.
      backbone_only: whether they are those of the network that this one was made from. `load_model` takes their
        backbone with `backbone_only=True`.
      licence: that the publisher states for all of its files, as SPDX has it where it can; None if it states one for
        each file, or none.
    """

    publisher: str | None
    name: str
    format: FileFormat = "pytorch"
    data: str = "ImageNet"
    address: str | None = None
    other_address: str | None = None
    short_name: str | None = None
    num_classes: int | None = None
    packaged: Callable[[], Path] | None = None
    backbone_only: bool = False
    licence: str | None = None

    @property
    def title(self) -> str:
        """The name, with a file's suffix if it has no address, and the data set if it is another than ImageNet."""
        suffix = ".caffemodel" if self.format == "caffemodel" and self.address is None else ""
        return f"{self.name}{suffix}" + ("" if self.data == "ImageNet" else f" ({self.data})")


def torchvision(name: str, file: str) -> WeightsSource:
    """Weights by torchvision, in one of the files that it publishes."""
    address = f"https://download.pytorch.org/models/{file}"
    return WeightsSource("torchvision", name, address=address, licence="BSD-3-Clause")


def cam_release(
    name: str, file: str, other_file: str | None = None, *, data: str = "ImageNet", num_classes: int | None = None
) -> WeightsSource:
    """Weights by Zhou et al. (2016), in one of the files that github.com/zhoubolei/CAM lists.

    Args:
      name: of the network there.
      file: by the present list, without its suffix.
      other_file: its name in an earlier list.
      data: the data set that they were trained on.
      num_classes: as in `WeightsSource`.
    """
    folder = "http://cnnlocalization.csail.mit.edu/demoCAM/models"
    return WeightsSource(
        "Zhou et al.",
        name,
        "caffemodel",
        data,
        address=f"{folder}/{file}.caffemodel",
        other_address=other_file and f"{folder}/{other_file}.caffemodel",
        short_name="cam-release" if data == "ImageNet" else f"cam-release-{data.lower()}",
        num_classes=num_classes,
        licence="for unrestricted use",
    )


@dataclass(frozen=True)
class ModelSpec:
    """A registered network.

    Attributes:
      name: registry name.
      build: `build(num_classes=, pool=, dtype=, rngs=) -> CamModel`.
      num_classes: default number of classes.
      weights: where trained weights come from; empty if nobody publishes any.
      tensor_names: table of the names in such files. `camjax.models.caffe_layers.CAFFE_NAMES` is always added for a
        caffemodel.
      input_rules: by format, how images are normalized with such weights, if not as the network does by default.
      class_layer: place of the layer that has one unit a class.
      look_alikes: another network of timm, whose files have tensors of the same names and shapes as those of this one,
        by the name of a tensor in them that no other file has. Only a `config.json` tells the two apart.
      caffe_order: names of layers without weights in the order that they have in this network, for a caffemodel of
        another one that has weights of the same names and shapes.
      new_layers: places that start new when the backbone of another network is taken over: the head, and the layers
        that were put in front of it.
      module: the module that registered it by `camjax.register_model`; None for camjax's own.
      constructor: what `camjax.register_model` was given; None for camjax's own.
    """

    name: str
    build: Callable[..., CamModel]
    num_classes: int = 1000
    weights: tuple[WeightsSource, ...] = ()
    tensor_names: Table = ()
    input_rules: Mapping[FileFormat, InputRule] = field(default_factory=dict)
    class_layer: str = "head"
    look_alikes: Mapping[str, str] = field(default_factory=dict)
    caffe_order: tuple[str, ...] = ()
    new_layers: tuple[str, ...] = ("head",)
    module: str | None = None
    constructor: Callable | None = None

    @property
    def full_name(self) -> str:
        """The name that finds it in any process: `MODULE:NAME` if a module that can be imported registers it."""
        return self.name if self.module in (None, "__main__", "__mp_main__") else f"{self.module}:{self.name}"

    @property
    def short_names(self) -> dict[str, WeightsSource]:
        """The published files that have an address, by their short names."""
        published = [source for source in self.weights if source.address]
        return {source.short_name or source.publisher or source.name: source for source in published}

    @property
    def packaged(self) -> WeightsSource | None:
        """The weights that a pip package has which camjax, or its extra `weights`, requires; or None."""
        return next((source for source in self.weights if source.packaged), None)

    @property
    def installed(self) -> bool:
        """Whether that package is installed."""
        try:
            return any(source.packaged() for source in self.weights if source.packaged)
        except ImportError:
            return False

    def weights_in_words(self, *, backbone_only: bool = False) -> str:
        """Whose weights these are, such as "torchvision's or timm's resnet50"; "" if there are none.

        Args:
          backbone_only: of the networks that this one was made from, in place of its own.
        """
        owners: dict[str, list[str]] = {}
        for source in self.weights:
            if source.backbone_only == backbone_only:
                owners.setdefault(source.title, []).append(f"{source.publisher}'s" if source.publisher else "your own")
        return " or ".join(f"{' or '.join(names)} {title}" for title, names in owners.items())
