"""Maps as files, in the layout that wsolevaluation's evaluator reads."""

from pathlib import Path

import numpy as np

from camjax.metrics import Truth, score_map

FOLDER = "scoremaps"


def save_score_maps(directory: Path, truth: Truth, maps) -> None:
    """Writes `scoremaps/<file name>.npy` for each image: (224, 224) float64 in 0..1, as wsolevaluation prepares it.

    In float64, as it does: rounded to float32, a pixel can fall to another of the 256 levels of its boxes.

    Args:
      directory: where the folder `scoremaps` is.
      truth: the names of B images, and which of them count; the others are left out.
      maps: (B, h, w) raw maps.

    Raises:
      ValueError: a file name that leads out of the folder.
    """
    root = (directory / FOLDER).resolve()
    for i in np.flatnonzero(truth.counted).tolist():
        path = (root / f"{truth.filenames[i]}.npy").resolve()
        if not path.is_relative_to(root):
            raise ValueError(f"file name {truth.filenames[i]!r} leads out of {root}: the map is not written.")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, score_map(maps[i]))
