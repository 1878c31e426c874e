"""Networks of the registry with fewer blocks, for what depends on the layers and not on how many there are."""

import pytest

import camjax
from camjax.models import (
    convnext,
    densenet,
    efficientnet_lite,
    efficientnet_v2,
    mobilenet,
    mobilenet_v3,
    model_spec,
    regnet,
    resnet,
    swin,
    vit,
)

_MOBILENETS = list(mobilenet_v3.BLOCKS.items())

NAMES = [name for name in camjax.list_models() if model_spec(name).module is None]
"""Camjax's own networks, without those that other tests register."""

TOKENS = [name for name in NAMES if model_spec(name).class_layer == "head.dense"]
"""Transformers in which a class token, or a learned query, decides: they have no exact map."""


def cut(monkeypatch: pytest.MonkeyPatch, stages: int, blocks: int = 1) -> None:
    """Leaves one block, or as many as said, in each of the first `stages` stages of the networks of today.

    With 4 stages these are all; of fewer, the inverted residuals keep one more, because their first has no expansion,
    and EfficientNetV2 one that is not fused. Transformers, which have one stage, keep one block more.
    """
    monkeypatch.setattr(resnet, "DEPTHS", dict.fromkeys(resnet.DEPTHS, (blocks,) * stages))
    monkeypatch.setattr(densenet, "DEPTHS", (blocks,) * stages)
    for module in (convnext, regnet, swin):
        monkeypatch.setattr(module, "STAGES", tuple((blocks, *rest) for _, *rest in module.STAGES[:stages]))
    kept = efficientnet_v2.STAGES if stages == 4 else (*efficientnet_v2.STAGES[:stages], efficientnet_v2.STAGES[3])
    monkeypatch.setattr(efficientnet_v2, "STAGES", tuple(stage._replace(repeats=blocks) for stage in kept))
    monkeypatch.setattr(mobilenet_v3, "BLOCKS", {size: _first(rows, stages) for size, rows in _MOBILENETS})
    monkeypatch.setattr(vit, "SIZES", {name: size._replace(depth=blocks + 1) for name, size in vit.SIZES.items()})
    for module in (mobilenet, efficientnet_lite):
        kept = module.STAGES if stages == 4 else module.STAGES[: stages + 1]
        monkeypatch.setattr(module, "STAGES", tuple((blocks, *rest) for _, *rest in kept))


def _first(rows: tuple[mobilenet_v3.Row, ...], stages: int) -> tuple[mobilenet_v3.Row, ...]:
    """The first block of each number of features: of all, or of as many as there are stages and one more."""
    firsts = {row.features: row for row in reversed(rows)}
    kept = list(reversed(firsts.values()))
    return tuple(kept if stages == 4 else kept[: stages + 1])
