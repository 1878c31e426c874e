"""Names of ConvNeXt's weights as torchvision and timm write them."""

from camjax.weights.names import CONV, DENSE, Rule


def _layernorm(pattern: str, place: str) -> tuple[Rule, ...]:
    return Rule(rf"{pattern}\.weight", rf"{place}.scale"), Rule(rf"{pattern}\.bias", rf"{place}.bias")


def _layer(pattern: str, place: str, axes: tuple[int, ...]) -> tuple[Rule, ...]:
    return Rule(rf"{pattern}\.weight", rf"{place}.kernel", axes), Rule(rf"{pattern}\.bias", rf"{place}.bias")


_TORCHVISION = (
    *_layer(r"features\.0\.0", "stem", CONV),
    *_layernorm(r"features\.0\.1", "stem_norm"),
    # Stages and the downsampling between them take turns there.
    *(
        rule
        for stage in range(4)
        for block, place in ((rf"features\.{2 * stage + 1}\.(\d+)", rf"stages.{stage}.\1"),)
        for rule in (
            *_layer(rf"{block}\.block\.0", f"{place}.conv", CONV),
            *_layernorm(rf"{block}\.block\.2", f"{place}.norm"),
            *_layer(rf"{block}\.block\.3", f"{place}.expand", DENSE),
            *_layer(rf"{block}\.block\.5", f"{place}.project", DENSE),
            Rule(rf"{block}\.layer_scale", f"{place}.scale", squeeze=True),  # (K, 1, 1)
        )
    ),
    *(
        rule
        for i in range(3)
        for rule in (
            *_layernorm(rf"features\.{2 * i + 2}\.0", f"downsamples.{i}.norm"),
            *_layer(rf"features\.{2 * i + 2}\.1", f"downsamples.{i}.conv", CONV),
        )
    ),
    *_layernorm(r"classifier\.0", "norm"),
    *_layer(r"classifier\.2", "head", DENSE),
)

_BLOCK, _PLACE = r"stages\.(\d)\.blocks\.(\d+)", r"stages.\1.\2"

_TIMM = (
    *_layer(r"stem\.0", "stem", CONV),
    *_layernorm(r"stem\.1", "stem_norm"),
    *_layer(rf"{_BLOCK}\.conv_dw", f"{_PLACE}.conv", CONV),
    *_layernorm(rf"{_BLOCK}\.norm", f"{_PLACE}.norm"),
    *_layer(rf"{_BLOCK}\.mlp\.fc1", f"{_PLACE}.expand", DENSE),
    *_layer(rf"{_BLOCK}\.mlp\.fc2", f"{_PLACE}.project", DENSE),
    Rule(rf"{_BLOCK}\.gamma", f"{_PLACE}.scale"),
    *(
        rule
        for i in range(3)
        for rule in (
            *_layernorm(rf"stages\.{i + 1}\.downsample\.0", f"downsamples.{i}.norm"),
            *_layer(rf"stages\.{i + 1}\.downsample\.1", f"downsamples.{i}.conv", CONV),
        )
    ),
    *_layernorm(r"head\.norm", "norm"),
    *_layer(r"head\.fc", "head", DENSE),
)

TABLE = _TORCHVISION + _TIMM
