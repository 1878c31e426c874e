"""The figures of an evaluation: localization against the threshold, and the best and worst cases."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from camjax.cam import resize_map
from camjax.data.annotation import AnnotatedSource
from camjax.data.images import shrink_image
from camjax.evaluation.cases import Case, Cases
from camjax.evaluation.runner import Evaluation
from camjax.figure_saving import save_figure
from camjax.metrics import MaxBoxAcc, ThresholdCurve
from camjax.viz import DPI, localization_figure

CURVES = {
    "gt_known_localization": ("GT-known", "-"),
    "MaxBoxAcc_50": ("MaxBoxAcc", (0, (6, 1))),
    "MaxBoxAccV2_30": ("MaxBoxAccV2, IoU 0.3", (0, (1, 1))),
    "MaxBoxAccV2_50": ("MaxBoxAccV2, IoU 0.5", (0, (3, 1))),
    "MaxBoxAccV2_70": ("MaxBoxAccV2, IoU 0.7", (0, (3, 1, 1, 1))),
}
"""Curve of a metric -> its words in the legend, and its line style."""


def curve_figure(evaluation: Evaluation, *, dpi: float = DPI) -> Figure | None:
    """All threshold curves of all methods in one plot.

    A curve is the share of images whose box of the true class is right, against the threshold of the box rule.

    Args:
      evaluation: what was found.
      dpi: pixels an inch.

    Returns:
      The figure; None if no metric has a curve.
    """
    figure = Figure(figsize=(8.4, 4.2), dpi=dpi, layout="constrained")
    axes = figure.subplots()
    for number, (method, by_name) in enumerate(evaluation.metrics.items()):
        for metric in by_name.values():
            if isinstance(metric, ThresholdCurve):
                curve = metric.curve()._asdict()
            elif isinstance(metric, MaxBoxAcc):
                curve = metric.curve()
            else:
                continue
            for name, (words, style) in CURVES.items():
                if name in curve:
                    (line,) = axes.plot(curve["thresholds"], curve[name], color=f"C{number}", linewidth=1.3)
                    line.set(label=f"{method}, {words}", linestyle=style)
    if not axes.lines:
        return None
    axes.set(xlabel="threshold, share of the map's maximum", ylabel="images localized (%)", xlim=(0, 1), ylim=(0, 100))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure


def cases_figure(
    source: AnnotatedSource, cases: Cases, *, columns: int | None = None, dpi: float = DPI, **drawing: Any
) -> Figure | None:
    """A grid of the images whose box of the true class is best, then of those where it is worst.

    Args:
      source: the images.
      cases: of an evaluation of these images.
      columns: images side by side; None for the best in the first row and the worst in the second.
      dpi: pixels an inch.
      drawing: other options of `camjax.viz.localization_figure`.

    Returns:
      The figure; None where no image was scored.
    """
    best, worst = cases.chosen()
    chosen = best + worst
    if not chosen:
        return None
    images = [shrink_image(source[case.index]["image"], round(400 * dpi / DPI)) for case in chosen]
    annotations = [source.annotation(case.index) for case in chosen]
    names = cases.class_names
    titles = [
        f"{names[case.label]}: IoU {case.iou:.2f}"
        + ("" if case.prediction == case.label else f", taken for {names[case.prediction]}")
        for case in chosen
    ]
    return localization_figure(
        images,
        [_in_image(case, image.shape[:2]) for case, image in zip(chosen, images, strict=True)],
        [case.box for case in chosen],
        [annotation.boxes for annotation in annotations],
        titles,
        columns=columns or len(best),
        dpi=dpi,
        **drawing,
    )


def _in_image(case: Case, size: tuple[int, int]) -> np.ndarray:
    """The map of an image shown at (H, W) pixels; outside of the network's view it has its least value."""
    if np.array_equal(case.view, [0, 0, 1, 1]):
        return case.map
    ymin, xmin, ymax, xmax = np.rint(case.view * np.tile(size, 2)).astype(int)
    whole = np.full(size, case.map.min(), np.float32)
    whole[ymin:ymax, xmin:xmax] = resize_map(jnp.asarray(case.map), (ymax - ymin, xmax - xmin))
    return whole


def save_figures(directory: Path, figures: dict[str, Figure | None], format: str = "png") -> list[Path]:
    """Writes figures.

    Args:
      directory: where.
      figures: name of the file, without suffix -> figure; None is left out.
      format: suffix of the files, "png" or another one that Matplotlib writes.

    Returns:
      The paths.
    """
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            paths.append(directory / f"{name}.{format}")
            save_figure(figure, paths[-1])
    return paths
