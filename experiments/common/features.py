"""Pooled features of an experiment's images, kept in its output folder."""

from collections.abc import Mapping
from pathlib import Path

from camjax.data.rows import RandomAccessSource
from camjax.features import FeatureStore, extract_features
from camjax.models import CamModel
from camjax.terminal import Console, progress


def stored_features(
    model: CamModel,
    source: RandomAccessSource,
    directory: Path,
    console: Console,
    *,
    batch_size: int = 32,
    title: str = "",
) -> FeatureStore:
    """The features of all images, from disk where they are there; shows progress, and names unreadable images.

    Args:
      model: whose features.
      source: the images.
      directory: of the store.
      console: for progress and messages.
      batch_size: images at a time.
      title: what the images are, where an experiment has several sets of them.
    """
    with progress(f"{title}: features" if title else "features", console) as update:
        store = extract_features(model, source, directory, batch_size=batch_size, progress=update)
    report_unreadable(store.unreadable, console, title=title)
    return store


def report_unreadable(unreadable: Mapping, console: Console, *, title: str = "") -> None:
    """Prints how many images could not be read, and why the first three could not.

    Args:
      unreadable: any key -> what was wrong with an image.
      console: to print to.
      title: as in `stored_features`.
    """
    if unreadable:
        some = "; ".join(list(unreadable.values())[:3])
        start = f"{title}: " if title else ""
        console.print(f"{start}{len(unreadable)} images can't be read and are left out: {some}", soft_wrap=True)
