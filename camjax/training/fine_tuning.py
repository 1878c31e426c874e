"""Fine-tuning a pretrained network on one's own pictures: a recipe that needs no search for its settings."""

import math
from collections.abc import Sequence

from camjax.data.images import Size
from camjax.data.transforms import Transform, compose, random_horizontal_flip, random_resized_crop
from camjax.errors import InputError
from camjax.training.recipes import Recipe


def fine_tuning(
    num_examples: int,
    *,
    batch_size: int = 32,
    epochs: int = 10,
    learning_rate: float | None = None,
    new_layers: Sequence[str] = ("head",),
) -> Recipe:
    """Fine-tuning of a network that was trained on ImageNet.

    Args:
      num_examples: training pictures.
      batch_size: images per step, over all devices of all processes.
      epochs: times that each picture is seen.
      learning_rate: peak learning rate of the pretrained layers; None for 0.001 for each 32 images of the batch.
      new_layers: places of the model that start from random weights, as in `Recipe`.

    Raises:
      ValueError: a number of examples or epochs, a batch size or a learning rate that is not positive.
    """
    for name, number in (("num_examples", num_examples), ("batch_size", batch_size), ("epochs", epochs)):
        if number < 1:
            raise InputError(f"{name} is {number}; expected at least 1.")
    steps = math.ceil(epochs * num_examples / batch_size)
    return Recipe(
        steps=steps,
        batch_size=batch_size,
        learning_rate=0.001 * batch_size / 32 if learning_rate is None else learning_rate,
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

    Args:
      size: (h, w) of the network's input, or an int for a square: `model.input_size`.

    Returns:
      (H, W, 3) uint8 and a generator -> (h, w, 3) uint8.
    """
    return compose(random_resized_crop(size, scale=(0.35, 1.0)), random_horizontal_flip)
