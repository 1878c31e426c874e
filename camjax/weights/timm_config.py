"""The `config.json` that timm puts beside a file of weights: which network they are of, and how it takes images."""

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from camjax.errors import InputError
from camjax.json_files import parse_json
from camjax.weights.errors import WeightsError

NAME = "config.json"

_ADVICE = "Download or repair the file, or move it away: the network's own rule for images holds then."


_CENTRAL = "center"  # the one way of cropping that camjax has


@dataclass(frozen=True)
class TimmConfig:
    """What such a file says.

    Attributes:
      path: of the file.
      architecture: timm's name of the network.
      num_classes: C, or None if it is not known.
      class_names: C strings, or None.
      input_rule: arguments of `CamModel.set_input_rule`, or none if the file does not say how images are normalized.
      input_size: (H, W) in pixels of the images that the network was trained with, or None.
    """

    path: Path
    architecture: str
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    input_rule: dict[str, Any] = field(default_factory=dict)
    input_size: tuple[int, int] | None = None


class _Pretrained(TypedDict, total=False):
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_size: tuple[int, int, int]
    crop_pct: float
    crop_mode: str
    interpolation: str
    num_classes: int | None
    label_names: list[str] | None
    labels: list[str] | None


class _Config(_Pretrained, total=False):
    architecture: str
    pretrained_cfg: _Pretrained


def read_timm_config(weights: str | PathLike[str]) -> TimmConfig | None:
    """The `config.json` in the folder of a file of weights; None if there is none, or none of timm's.

    Args:
      weights: path of the file of weights.

    Raises:
      WeightsError: the file is damaged.
    """
    path = Path(weights).with_name(NAME)
    if not path.is_file():
        return None
    text, name = path.read_bytes(), f"{path}, beside the weights,"
    try:
        if not isinstance(parse_json(text, dict[str, Any], name=name, advice=_ADVICE).get("architecture"), str):
            return None  # of another program
        config = parse_json(text, _Config, name=name, advice=_ADVICE)
    except InputError as error:
        raise WeightsError(str(error)) from None
    # Of older versions, one level; of newer ones, what is outside of `pretrained_cfg` wins.
    said: dict[str, Any] = {**config.get("pretrained_cfg", {}), **config}
    rule: dict[str, Any] = {}
    if "mean" in said and "std" in said:
        mean, std = (tuple(255 * number for number in said[key]) for key in ("mean", "std"))
        rule = {"mean": mean, "std": std, "channel_order": "rgb"}
        if "crop_pct" in said and said.get("crop_mode", _CENTRAL) == _CENTRAL:
            rule["crop_share"] = said["crop_pct"]
        if "interpolation" in said:
            rule["interpolation"] = said["interpolation"]
    classes, names = said.get("num_classes") or None, said.get("label_names") or said.get("labels")
    return TimmConfig(
        path,
        config["architecture"],
        classes,
        tuple(names) if names and len(names) == classes else None,
        rule,
        said["input_size"][1:] if "input_size" in said else None,
    )
