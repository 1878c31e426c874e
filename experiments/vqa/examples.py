"""From questions and images to what the baseline of visual question answering takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from camjax.features.store import extract_features
from camjax.models import CamModel
from experiments.common.progress import progress
from experiments.vqa.baseline import Examples
from experiments.vqa.data import CocoImages, Question, bags_of_words

Splits = Mapping[str, tuple[list[Question], CocoImages]]
"""Split -> its questions, and their images."""


def examples_of(
    directory: Path,
    model: CamModel,
    splits: Splits,
    names: Sequence[str],
    vocabulary: Sequence[str],
    console: Console,
) -> tuple[list[Question], Examples]:
    """The questions of some splits whose images can be read, and what the baseline takes of them.

    Args:
      directory: of the run, where the features of all images are kept.
      model: whose features.
      splits: of the data set.
      names: of those that are wanted.
      vocabulary: the words that are known.
      console: for progress, and for what can't be read.
    """
    kept, features, rows = [], [], []
    for name in names:
        questions, images = splits[name]
        with progress(f"{name}: features", console) as update:
            store = extract_features(model, images, directory / "features" / name, progress=update)
        readable = store.readable[images.rows(questions)]
        if store.unreadable:
            some = "; ".join(list(store.unreadable.values())[:3])
            console.print(
                f"{name}: {len(store.unreadable)} images can't be read, and {np.sum(~readable)} questions about them "
                f"are left out: {some}",
                soft_wrap=True,
            )
        chosen = [question for question, is_readable in zip(questions, readable, strict=True) if is_readable]
        rows.append(images.rows(chosen) + sum(map(len, features)))
        features.append(store[:])
        kept += chosen
    return kept, Examples(np.concatenate(features), np.concatenate(rows), bags_of_words(kept, vocabulary))
