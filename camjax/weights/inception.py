"""Names of Inception v3's weights as torchvision writes them, and of the localization benchmark's InceptionCam."""

from camjax.weights.names import CONV, DENSE, Rule, batchnorm

TABLE = (
    Rule(r"AuxLogits\..+", None),  # the auxiliary classifier, which only training used
    Rule(r"((?:Conv2d|Mixed)_.+)\.conv\.weight", r"\1.conv.kernel", CONV),
    *batchnorm(r"((?:Conv2d|Mixed)_.+)\.bn", r"\1.bn"),
    Rule(r"fc\.weight", "head.kernel", DENSE),
    Rule(r"fc\.bias", "head.bias"),
    Rule(r"(SPG_A3_\db)\.0\.weight", r"\1.kernel", CONV),
    Rule(r"(SPG_A3_\db)\.0\.bias", r"\1.bias"),
    Rule(r"SPG_A4\.weight", "head.kernel", DENSE),
    Rule(r"SPG_A4\.bias", "head.bias"),
)
