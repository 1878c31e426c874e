"""The recipe for one's own pictures: lengths and learning rates worked out by hand."""

import numpy as np
import pytest

from camjax.training.fine_tuning import fine_tuning, fine_tuning_augmentation


@pytest.mark.parametrize(
    "options, steps, learning_rate",
    [
        ({"num_examples": 6400}, 2000, 1e-3),
        ({"num_examples": 6401}, 2001, 1e-3),
        ({"num_examples": 20}, 100, 1e-3),  # few pictures: more than ten epochs
        ({"num_examples": 20, "epochs": 10}, 7, 1e-3),
        ({"num_examples": 3200, "epochs": 0.5}, 50, 1e-3),
        ({"num_examples": 6400, "batch_size": 128}, 500, 2e-3),
        ({"num_examples": 6400, "batch_size": 8}, 8000, 5e-4),
        ({"num_examples": 6400, "learning_rate": 0.3, "batch_size": 8}, 8000, 0.3),
    ],
)
def test_length_and_learning_rate(options, steps, learning_rate):
    recipe = fine_tuning(**options)
    assert recipe.steps == steps and recipe.warmup_steps == steps // 10
    assert recipe.learning_rate == pytest.approx(learning_rate)
    assert float(recipe.schedule()(recipe.warmup_steps)) == pytest.approx(learning_rate, rel=1e-5)
    assert recipe.freeze_batchnorm and recipe.new_layers_factor == 10 and recipe.new_layers == ["head"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_examples": 0}, "num_examples is 0; expected at least 1"),
        ({"num_examples": 9, "batch_size": -1}, "batch_size is -1; expected at least 1"),
        ({"num_examples": 9, "epochs": 0}, "epochs is 0; expected a number above 0"),
        ({"num_examples": 9, "learning_rate": 0.0}, "learning_rate=0.0: expected a positive number"),
    ],
)
def test_numbers_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        fine_tuning(**options)


def test_augmentation_keeps_a_third_of_the_picture_and_mirrors_half_of_them():
    """Pixels of a ramp say where they are from: its columns and rows give the part's extent."""
    y, x = np.mgrid[0:200, 0:200]
    ramp = np.stack([x, y, x], axis=-1).astype(np.uint8)
    augment = fine_tuning_augmentation((50, 60))
    areas, mirrored = [], 0
    for seed in range(200):
        image = augment(ramp, np.random.default_rng(seed)).astype(float)
        assert image.shape == (50, 60, 3)
        # The centers of the first and the last pixel are one pixel less than the part's extent apart.
        across, down = (image[0, -1, 0] - image[0, 0, 0]) * 60 / 59, (image[-1, 0, 1] - image[0, 0, 1]) * 50 / 49
        areas.append(abs(across) * down / 200**2)
        mirrored += across < 0
    assert 0.33 < min(areas) < 0.45 and 0.9 < max(areas) < 1.02
    assert 70 < mirrored < 130
