"""Names of MobileNetV2's weights as torchvision and timm write them."""

from collections.abc import Sequence

from camjax.models.mobilenet import STAGES
from camjax.weights.names import CONV, DENSE, Rule

_REPEATS = tuple(repeats for repeats, *_ in STAGES)


def convbn(conv: str, bn: str, place: str) -> tuple[Rule, ...]:
    """The rules of a convolution without bias and of its BatchNorm, in the fewest patterns.

    Args:
      conv: pattern of the convolution's name.
      bn: pattern of the BatchNorm's name.
      place: of the `ConvBN` in the model.
    """
    return (
        Rule(rf"{conv}\.weight", f"{place}.conv.kernel", CONV),
        Rule(rf"{bn}\.weight", f"{place}.bn.scale"),
        Rule(rf"{bn}\.(?:running_)?(bias|mean|var)", rf"{place}.bn.\1"),
    )


def timm_table(repeats: Sequence[int]) -> tuple[Rule, ...]:
    """The rules of timm's networks of inverted residuals, which count the blocks of each stage anew.

    Args:
      repeats: number of blocks per stage; those of the first stage have no expansion.
    """
    rules, number = [*convbn("conv_stem", "bn1", "stem")], 0
    for stage, count in enumerate(repeats):
        for i in range(count):
            name, place = rf"blocks\.{stage}\.{i}\.", f"blocks.{number}."
            layers = ["expand", "depthwise", "project"] if stage else ["depthwise", "project"]
            convs = ["conv_pw", "conv_dw", "conv_pwl"] if stage else ["conv_dw", "conv_pw"]
            for n, (conv, layer) in enumerate(zip(convs, layers, strict=True), 1):
                rules += convbn(f"{name}{conv}", f"{name}bn{n}", f"{place}{layer}")
            number += 1
    return (
        *rules,
        *convbn("conv_head", "bn2", "top"),
        Rule(r"classifier\.weight", "head.kernel", DENSE),
        Rule(r"classifier\.bias", "head.bias"),
        Rule(r".*\.num_batches_tracked", None),
    )


def _torchvision_table() -> tuple[Rule, ...]:
    """The rules of torchvision's names, which number stem, blocks and top throughout."""
    blocks = sum(_REPEATS)
    rules = [*convbn(r"features\.0\.0", r"features\.0\.1", "stem")]
    for number in range(blocks):
        name, place = rf"features\.{number + 1}\.conv\.", f"blocks.{number}."
        activated = ["expand", "depthwise"] if number else ["depthwise"]
        for n, layer in enumerate(activated):
            rules += convbn(rf"{name}{n}\.0", rf"{name}{n}\.1", place + layer)
        rules += convbn(f"{name}{len(activated)}", f"{name}{len(activated) + 1}", f"{place}project")
    return (
        *rules,
        *convbn(rf"features\.{blocks + 1}\.0", rf"features\.{blocks + 1}\.1", "top"),
        Rule(r"classifier\.1\.weight", "head.kernel", DENSE),
        Rule(r"classifier\.1\.bias", "head.bias"),
    )


TABLE = _torchvision_table() + timm_table(_REPEATS)
