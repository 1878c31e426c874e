"""Fine-tuning by `camjax train`'s recipe, beside a usual PyTorch fine-tune: same network, weights, pictures and steps.

docs/training.md has the table that the long case prints.
"""

import math

import numpy as np
import pytest

from benchmarks import fine_tuning

FEW = fine_tuning.PHOTOGRAPHS[7:13]
"""Photographs in color, of very different things."""


@pytest.mark.parity
@pytest.mark.parametrize(
    "others, seeds, options",
    [
        (["PyTorch by", "rate 0.01"], 1, {"photographs": FEW, "batch_size": 8, "epochs": 4}),
        pytest.param(["PyTorch"], 3, {"batch_size": 16, "epochs": 5}, marks=pytest.mark.long),
    ],
)
def test_the_recipe_reaches_what_pytorch_reaches(others, seeds, options):
    """Its mean accuracy is that of PyTorch's best learning rate or more, within twice the standard error."""
    pytest.importorskip("torch", reason="PyTorch is not installed: make test-parity installs it")
    means = {
        name: np.mean(accuracies)
        for name, accuracies in fine_tuning.measured(["the recipe", *others], seeds=seeds, **options).items()
    }
    ours = means.pop("the recipe")
    classes = len(options.get("photographs", fine_tuning.PHOTOGRAPHS))
    tested = seeds * classes * fine_tuning.VALIDATION
    noise = 100 * math.sqrt(2 * 0.25 / tested)  # of the difference of two shares, at their most uncertain
    assert ours > max(means.values()) - 2 * noise
    assert ours > 3 * 100 / classes  # three times what guessing has
