"""Published recipes: how the papers trained their networks, each with its source.

Use one unchanged, or change it: `dataclasses.replace(wsol("vgg16_wsol", "cub"), accumulate=4)`. Squashing, cropping and
flipping of images are not part of a recipe: see `camjax.data.transforms`.

In all recipes the weight decay applies only to kernels. Biases do not decay, as in Caffe, and neither do BatchNorm's
scales, which usually do in PyTorch.
"""

from typing import Literal

from camjax.errors import InputError
from camjax.models import model_spec
from camjax.training.recipes import Recipe

IMAGENET_IMAGES = 1_281_167
"""Training images of ILSVRC 2012, tfds' `imagenet2012`."""

CUB_IMAGES = 5_994
"""Training images of CUB-200-2011, tfds' `caltech_birds2011`."""

OPENIMAGES_IMAGES = 29_819
"""Training images of OpenImages30k."""

_WSOL_BATCH = 32
# Number of epochs, and of epochs between two decays.
_WSOL_EPOCHS = {"imagenet": (10, 3), "cub": (50, 15), "openimages": (10, 3)}
_WSOL_IMAGES = {"imagenet": IMAGENET_IMAGES, "cub": CUB_IMAGES, "openimages": OPENIMAGES_IMAGES}
_WSOL_LEARNING_RATES = {
    "imagenet": {"vgg16": 1.654502e-5, "inception_v3": 3.606503e-4, "resnet50": 3.108411e-5},
    "cub": {"vgg16": 1.268269e-5, "inception_v3": 2.24844746e-3, "resnet50": 2.3222617e-4},
    # That of VGG is in the command of the benchmark's README; for the others we know none, and take those of ImageNet.
    "openimages": {"vgg16": 2.27913316e-3, "inception_v3": 3.606503e-4, "resnet50": 3.108411e-5},
}
_WSOL_WEIGHT_DECAY = {"vgg16": 5e-4, "inception_v3": 5e-4, "resnet50": 1e-4}
# Images a batch, learning rate, epochs, and epochs between two decays.
_TSCAM = {"imagenet": (256, 5e-4, 20, 10), "cub": (128, 5e-5, 60, 30)}


def googlenet_cam_release() -> Recipe:
    """The solver released with GoogLeNet-GAP (Zhou et al. 2016), from a pretrained GoogLeNet.

    SGD with classical momentum 0.9 at 1e-3, x0.1 every 40,000 of 160,000 steps of 64 images (eight epochs of ILSVRC
    2012), weight decay 5e-4. Of the released definition's learning rates, CAM_conv and CAM_fc have the same as the
    layers of the backbone, not ten times as much.

    Two things differ: in the release, biases learn at twice the rate, and Caffe keeps the learning rate inside the
    momentum, so that the first few dozen steps after a decay are larger.

    Expected result (table 1): 35.0 % top-1 and 13.2 % top-5 error on the validation images. No solver was released for
    the paper's other networks.

    Returns:
      The recipe.
    """
    return Recipe(
        steps=160_000,
        batch_size=64,
        learning_rate=1e-3,
        decay="step",
        decay_every=40_000,
        decay_rate=0.1,
        momentum=0.9,
        nesterov=False,
        weight_decay=5e-4,
        new_layers=model_spec("googlenet_gap").new_layers,
    )


def resnet50_from_scratch(
    global_batch_size: int, epochs: int = 90, *, num_examples: int = IMAGENET_IMAGES, accumulate: int = 1
) -> Recipe:
    """ResNet-50 on ImageNet from random weights, in batches large or small (Goyal et al. 2017, arXiv:1706.02677).

    Learning rate 0.1 for each 256 images of the batch, after a linear warm-up of five epochs, then half a cosine down
    to 0 (Loshchilov and Hutter 2017) instead of Goyal et al.'s three steps; Nesterov momentum 0.9, weight decay 1e-4,
    label smoothing 0.1 (Szegedy et al. 2016, section 7). Random resized crops of 224 and flips; create the network with
    `dtype=jnp.bfloat16` on an accelerator.

    Expected result, top-1 on one center crop of the validation images: without label smoothing, Goyal et al. report
    76.4 % with 256 images a batch and 76.3 with 8,192 (table 1). Flax's example, with warm-up and cosine over 100
    epochs, reaches 76.3 to 76.7, in 4.3 hours on 8 V100 in mixed precision, 4.4 on a TPU v3-8 and 2.1 on a v3-32.
    Beyond 8,192 images a batch accuracy falls (Goyal et al., figure 1).

    Args:
      global_batch_size: images per step, over all devices of all processes.
      epochs: more than the five of the warm-up.
      num_examples: images of the training split.
      accumulate: as in `Recipe`.

    Returns:
      The recipe.

    Raises:
      ValueError: five epochs or fewer, or a batch size below 1.
    """
    if epochs <= 5 or global_batch_size < 1:
        raise InputError(
            f"epochs={epochs}, global_batch_size={global_batch_size}: expected more than the 5 epochs of the warm-up, "
            "and at least one image."
        )
    return Recipe(
        steps=_steps(epochs, num_examples, global_batch_size),
        batch_size=global_batch_size,
        accumulate=accumulate,
        learning_rate=0.1 * global_batch_size / 256,
        warmup_steps=_steps(5, num_examples, global_batch_size),
        decay="cosine",
        weight_decay=1e-4,
        label_smoothing=0.1,
    )


def wsol(network: str, dataset: Literal["imagenet", "cub", "openimages"], *, num_examples: int | None = None) -> Recipe:
    """CAM in the benchmark for weakly supervised localization (Choe et al. 2020, arXiv:2001.07437).

    From networks pretrained on ImageNet. SGD with Nesterov momentum 0.9, 32 images a batch; 10 epochs of ImageNet or
    OpenImages30k with x0.1 every 3, or 50 of CUB with x0.1 every 15. The benchmark's code counts epochs from 1 and
    decays at the start of the 3rd or 15th, so the first decay comes after 2 or 14 epochs. New layers learn at ten times
    the rate of the others: conv6 and the head of VGG, the three layers after Mixed_6e of Inception, the last stage and
    the head of ResNet. Weight decay 5e-4, for ResNet 1e-4.

    The benchmark found the learning rate of each network and data set by a random search for the best localization on
    the validation split. These values are from reruns of that search; of OpenImages30k that of VGG is the one in the
    benchmark's README, and the others are those of ImageNet.

    Expected MaxBoxAccV2 for VGG, Inception, ResNet (Choe et al. 2022): ImageNet 60.0, 63.4, 63.7; CUB 63.7, 56.7, 63.0.

    Args:
      network: "vgg16_wsol", "inception_v3_wsol" or "resnet50_wsol", or one of these with "_28x28".
      dataset: "imagenet", "cub" or "openimages".
      num_examples: images of the training split; None for those of the whole data set.

    Returns:
      The recipe.

    Raises:
      ValueError: another network or data set.
    """
    family = network.removesuffix("_28x28").removesuffix("_wsol")
    known = [f"{name}_wsol" for name in _WSOL_WEIGHT_DECAY]
    if network.removesuffix("_28x28") not in known or dataset not in _WSOL_EPOCHS:
        raise InputError(
            f'network={network!r}, dataset={dataset!r}: the benchmark has {", ".join(known)}, each also with "_28x28", '
            f"on {', '.join(map(repr, _WSOL_EPOCHS))}."
        )
    images = _WSOL_IMAGES[dataset] if num_examples is None else num_examples
    epochs, every = _WSOL_EPOCHS[dataset]
    return Recipe(
        steps=_steps(epochs, images, _WSOL_BATCH),
        batch_size=_WSOL_BATCH,
        learning_rate=_WSOL_LEARNING_RATES[dataset][family],
        decay="step",
        decay_every=_steps(every, images, _WSOL_BATCH),
        decay_first=_steps(every - 1, images, _WSOL_BATCH),
        decay_rate=0.1,
        weight_decay=_WSOL_WEIGHT_DECAY[family],
        new_layers_factor=10.0,
        new_layers=("stages.3", "head") if family == "resnet50" else model_spec(network).new_layers,
    )


def tscam(dataset: str, *, num_examples: int | None = None) -> Recipe:
    """TS-CAM with a DeiT that was trained on ImageNet (Gao et al. 2021, arXiv:2103.14862), by the authors' code.

    AdamW with weight decay 0.05 and no new layers that learn faster. CUB: 128 images a batch, 60 epochs at 5e-5, a
    tenth of it after 29 and after 59. ImageNet: 256 images a batch, 20 epochs at 5e-4, a tenth of it after 9 and after
    19; the authors' code has another tenth after 11. Their stochastic depth of 0.1 is left out, and so is their choice
    of the epoch that localizes best on the test images.

    Published for DeiT-S, in percent of the test images: CUB 71.3 top-1 and 87.7 GT-known localization, 80.3 top-1
    accuracy; ImageNet 53.4, 67.6 and 74.3.

    Args:
      dataset: "imagenet" or "cub".
      num_examples: images of the training split; None for those of the whole data set.

    Returns:
      The recipe.

    Raises:
      ValueError: another data set.
    """
    if dataset not in _TSCAM:
        raise InputError(f"dataset={dataset!r}: TS-CAM's settings are for {' and '.join(map(repr, _TSCAM))}.")
    batch_size, rate, epochs, every = _TSCAM[dataset]
    images = _WSOL_IMAGES[dataset] if num_examples is None else num_examples
    return Recipe(
        steps=_steps(epochs, images, batch_size),
        batch_size=batch_size,
        algorithm="adamw",
        learning_rate=rate,
        decay="step",
        decay_every=_steps(every, images, batch_size),
        decay_first=_steps(every - 1, images, batch_size),
        decay_rate=0.1,
        weight_decay=0.05,
        new_layers=("head",),
    )


def _steps(epochs: int, images: int, batch_size: int) -> int:
    """The number of steps for some epochs; a batch may cross from one epoch into the next."""
    return max(1, round(epochs * images / batch_size))
