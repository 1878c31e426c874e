"""Maps as files, in the layout that wsolevaluation's evaluator reads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camjax.data.annotation import Annotation
from camjax.metrics.score_maps import score_map

FOLDER = "scoremaps"


def save_score_maps(directory: Path, annotations: Sequence[Annotation | None], maps: np.ndarray, counted) -> None:
    """Writes `scoremaps/<file name>.npy` for each image: (224, 224) float64 in 0..1, as wsolevaluation prepares it.

    In float64, as it does: rounded to float32, a pixel can fall to another of the 256 levels of its boxes.

    Args:
      directory: where the folder `scoremaps` is.
      annotations: of B images.
      maps: (B, h, w) raw maps.
      counted: (B,) bool; the others are left out.

    Raises:
      ValueError: a file name that leads out of the folder.
    """
    root = (directory / FOLDER).resolve()
    for annotation, map, on in zip(annotations, maps, counted, strict=True):
        if not on:
            continue
        path = (root / f"{annotation.filename}.npy").resolve()
        if not path.is_relative_to(root):
            raise ValueError(f"file name {annotation.filename!r} leads out of {root}: the map is not written.")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, score_map(map))
