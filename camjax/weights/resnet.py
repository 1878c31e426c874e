"""Names of ResNet's weights, which torchvision and timm write alike."""

from camjax.weights.names import CONV, DENSE, Rule, batchnorm

# torchvision counts the stages from 1 (layer1 to layer4), the model from 0.
TABLE = (
    Rule(r"conv1\.weight", "stem.conv.kernel", CONV),
    *batchnorm("bn1", "stem.bn"),
    *(
        rule
        for stage in range(4)
        for rule in (
            Rule(rf"layer{stage + 1}\.(\d+)\.conv(\d)\.weight", rf"stages.{stage}.\1.conv\2.conv.kernel", CONV),
            *batchnorm(rf"layer{stage + 1}\.(\d+)\.bn(\d)", rf"stages.{stage}.\1.conv\2.bn"),
            Rule(
                rf"layer{stage + 1}\.(\d+)\.downsample\.0\.weight", rf"stages.{stage}.\1.downsample.conv.kernel", CONV
            ),
            *batchnorm(rf"layer{stage + 1}\.(\d+)\.downsample\.1", rf"stages.{stage}.\1.downsample.bn"),
        )
    ),
    Rule(r"fc\.weight", "head.kernel", DENSE),
    Rule(r"fc\.bias", "head.bias"),
)
