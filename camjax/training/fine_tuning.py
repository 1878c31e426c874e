"""Fine-tuning a pretrained network on one's own pictures: a recipe that needs no search for its settings.

docs/training.md has what the settings were chosen by, and what others make of it.
"""

import math
from collections.abc import Sequence

from camjax.data.images import Size
from camjax.data.transforms import Transform, compose, random_horizontal_flip, random_resized_crop
from camjax.errors import InputError
from camjax.training.recipes import Recipe

EPOCHS = 10
"""How many times each picture is seen."""

LEAST_STEPS = 100
"""Few pictures are seen more often than `EPOCHS` times: below about 100 steps the network is not yet fitted to them."""

_LEARNING_RATE, _OF_BATCH = 1e-3, 32


def fine_tuning(
    num_examples: int,
    *,
    batch_size: int = 32,
    epochs: float | None = None,
    learning_rate: float | None = None,
    new_layers: Sequence[str] = ("head",),
) -> Recipe:
    """Fine-tuning of a network that was trained on ImageNet, on tens to thousands of pictures a class.

    All layers are trained by SGD with Nesterov momentum, new ones at ten times the learning rate of the others, as in
    Caffe's fine-tuning. The rate rises over a tenth of the steps, then falls along half a cosine. Labels are smoothed.

    Every BatchNorm stays as it is: its running statistics follow too slowly in a short run, and those of a small batch
    are noisy. Without its normalization large steps diverge, in large batches too: the learning rate is a tenth of what
    is usual with it, and grows with the square root of the batch size, not in proportion.

    Args:
      num_examples: training pictures.
      batch_size: images per step, over all devices of all processes.
      epochs: times that each picture is seen; None for `EPOCHS`, or as many as make `LEAST_STEPS` steps.
      learning_rate: peak learning rate of the pretrained layers; None for 0.001 at 32 images a batch.
      new_layers: places of the model that start from random weights, as in `Recipe`.

    Returns:
      The recipe.

    Raises:
      ValueError: a number that is not positive.
    """
    for name, number in (("num_examples", num_examples), ("batch_size", batch_size)):
        if number < 1:
            raise InputError(f"{name} is {number}; expected at least 1.")
    if epochs is not None and not epochs > 0:
        raise InputError(f"epochs is {epochs}; expected a number above 0, or None.")
    steps = math.ceil((EPOCHS if epochs is None else epochs) * num_examples / batch_size)
    if epochs is None:
        steps = max(steps, LEAST_STEPS)
    return Recipe(
        steps=steps,
        batch_size=batch_size,
        learning_rate=_LEARNING_RATE * math.sqrt(batch_size / _OF_BATCH) if learning_rate is None else learning_rate,
        warmup_steps=steps // 10,
        decay="cosine",
        weight_decay=1e-4,
        new_layers_factor=10.0,
        new_layers=new_layers,
        freeze_batchnorm=True,
        label_smoothing=0.1,
    )


def fine_tuning_augmentation(size: Size) -> Transform:
    """The random changes of pictures that go with `fine_tuning`: a resized crop and a flip.

    A crop has at least 35 % of a picture's area, not 8 % as in training on ImageNet: what the picture is labeled for
    stays in it, and about as large as in evaluation, which sees the whole picture.

    Args:
      size: (h, w) of the network's input, or an int for a square: `model.input_size`.

    Returns:
      (H, W, 3) uint8 and a generator -> (h, w, 3) uint8.
    """
    return compose(random_resized_crop(size, scale=(0.35, 1.0)), random_horizontal_flip)
