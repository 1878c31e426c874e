"""Names of DenseNet's weights, which torchvision and timm write alike.

The files that torchvision publishes are older than its code: they say `norm.1` where it says `norm1`.
"""

from camjax.weights.names import CONV, DENSE, Rule, batchnorm

_LAYER = r"features\.denseblock{}\.denselayer(\d+)\."

# torchvision counts the blocks and transitions from 1, the model from 0.
TABLE = (
    Rule(r"features\.conv0\.weight", "stem.conv.kernel", CONV),
    *batchnorm(r"features\.norm0", "stem.bn"),
    *(
        rule
        for block in range(4)
        for rule in (
            *batchnorm(_LAYER.format(block + 1) + r"norm\.?1", rf"blocks.{block}.layer\1.norm.bn"),
            Rule(_LAYER.format(block + 1) + r"conv\.?1\.weight", rf"blocks.{block}.layer\1.conv1.conv.kernel", CONV),
            *batchnorm(_LAYER.format(block + 1) + r"norm\.?2", rf"blocks.{block}.layer\1.conv1.bn"),
            Rule(_LAYER.format(block + 1) + r"conv\.?2\.weight", rf"blocks.{block}.layer\1.conv2.kernel", CONV),
        )
    ),
    *(
        rule
        for i in range(3)
        for rule in (
            *batchnorm(rf"features\.transition{i + 1}\.norm", f"transitions.{i}.norm.bn"),
            Rule(rf"features\.transition{i + 1}\.conv\.weight", f"transitions.{i}.conv.kernel", CONV),
        )
    ),
    *batchnorm(r"features\.norm5", "norm.bn"),
    Rule(r"classifier\.weight", "head.kernel", DENSE),
    Rule(r"classifier\.bias", "head.bias"),
)
