"""From questions and images to the inputs of the baseline of visual question answering."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from camjax.models import CamModel
from camjax.terminal import Console
from experiments.common.features import stored_features
from experiments.vqa.baseline import Examples
from experiments.vqa.data import CocoImages, Question, bags_of_words

Splits = Mapping[str, tuple[list[Question], CocoImages]]
"""Split -> its questions and their images."""


def examples_of(
    directory: Path,
    model: CamModel,
    splits: Splits,
    names: Sequence[str],
    vocabulary: Sequence[str],
    console: Console,
) -> tuple[list[Question], Examples]:
    """The questions of some splits whose images can be read, and the baseline's inputs for them.

    Args:
      directory: of the run; the features of all images are kept there.
      model: gives the features.
      splits: of the data set.
      names: of the wanted splits.
      vocabulary: the known words.
      console: shows progress, and the unreadable images.
    """
    kept: list[Question] = []
    features: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    for name in names:
        questions, images = splits[name]
        store = stored_features(model, images, directory / "features" / name, console, title=name)
        readable = store.readable[images.rows(questions)]
        if not readable.all():
            console.print(f"{name}: {np.sum(~readable)} questions about these images are left out", soft_wrap=True)
        chosen = [question for question, is_readable in zip(questions, readable, strict=True) if is_readable]
        rows.append(images.rows(chosen) + sum(map(len, features)))
        features.append(store[:])
        kept += chosen
    return kept, Examples(np.concatenate(features), np.concatenate(rows), bags_of_words(kept, vocabulary))
