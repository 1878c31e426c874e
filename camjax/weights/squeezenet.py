"""Names of SqueezeNet 1.1's weights as torchvision writes them."""

from camjax.weights.names import CONV, Rule

# The Fire modules' numbers among torchvision's `features`, by group.
_FIRES = ((3, 4), (6, 7), (9, 10, 11, 12))

TABLE = (
    Rule(r"features\.0\.weight", "stem.kernel", CONV),
    Rule(r"features\.0\.bias", "stem.bias"),
    *(
        rule
        for group, numbers in enumerate(_FIRES)
        for i, number in enumerate(numbers)
        for rule in (
            Rule(rf"features\.{number}\.(squeeze|expand1x1|expand3x3)\.weight", rf"groups.{group}.{i}.\1.kernel", CONV),
            Rule(rf"features\.{number}\.(squeeze|expand1x1|expand3x3)\.bias", rf"groups.{group}.{i}.\1.bias"),
        )
    ),
    Rule(r"classifier\.1\.weight", "classifier.kernel", CONV),
    Rule(r"classifier\.1\.bias", "classifier.bias"),
)
