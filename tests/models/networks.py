"""Networks of the registry with fewer blocks, for what depends on the layers and not on how many there are."""

import pytest

import camjax
from camjax.models import convnext, densenet, efficientnet_lite, mobilenet, model_spec, resnet, vit

NAMES = [name for name in camjax.list_models() if model_spec(name).module is None]
"""Camjax's own networks, without those that other tests register."""

TOKENS = [name for name in NAMES if model_spec(name).class_layer == "head.dense"]
"""Transformers in which a class token, or a learned query, decides: they have no exact map."""


def cut(monkeypatch: pytest.MonkeyPatch, stages: int, blocks: int = 1) -> None:
    """Leaves one block, or as many as said, in each of the first `stages` stages of the networks of today.

    With 4 stages these are all; of fewer, the inverted residuals keep one more, because their first has no expansion.
    Transformers, which have one stage, keep one block more.
    """
    monkeypatch.setattr(resnet, "DEPTHS", dict.fromkeys(resnet.DEPTHS, (blocks,) * stages))
    monkeypatch.setattr(densenet, "DEPTHS", (blocks,) * stages)
    monkeypatch.setattr(convnext, "STAGES", tuple((blocks, features) for _, features in convnext.STAGES[:stages]))
    monkeypatch.setattr(vit, "SIZES", {name: size._replace(depth=blocks + 1) for name, size in vit.SIZES.items()})
    for module in (mobilenet, efficientnet_lite):
        kept = module.STAGES if stages == 4 else module.STAGES[: stages + 1]
        monkeypatch.setattr(module, "STAGES", tuple((blocks, *rest) for _, *rest in kept))
