"""The figures of an evaluation: localization against the threshold, and the best and worst cases."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from camjax.data.annotation import AnnotatedSource
from camjax.data.images import resize_image
from camjax.evaluation.runner import Evaluation
from camjax.inference import Localization
from camjax.viz import localization_figure

CASES = 6
"""Of the best, and of the worst."""

CURVES = {
    "gt_known_localization": "GT-known",
    "MaxBoxAcc_50": "MaxBoxAcc",
    "MaxBoxAccV2_30": "MaxBoxAccV2, IoU 0.3",
    "MaxBoxAccV2_50": "MaxBoxAccV2, IoU 0.5",
    "MaxBoxAccV2_70": "MaxBoxAccV2, IoU 0.7",
}
"""The curves of the metrics, with the words of the legend."""
LINE_STYLES = ("-", (0, (6, 1)), (0, (1, 1)), (0, (3, 1)), (0, (3, 1, 1, 1)))


def curve_figure(evaluation: Evaluation) -> Figure | None:
    """Each threshold curve of each method in one plot; None where no metric has one.

    A curve is the share of images whose box of the true class is right, against the threshold of the box rule.
    """
    figure = Figure(figsize=(8.4, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    for number, (method, of_method) in enumerate(evaluation.metrics.items()):
        for metric in of_method.values():
            if not hasattr(metric, "curve"):
                continue
            curve = metric.curve()
            curve = curve._asdict() if isinstance(curve, tuple) else curve
            for name, values in curve.items():
                if name in CURVES:
                    style = LINE_STYLES[list(CURVES).index(name)]
                    label = f"{method}, {CURVES[name]}"
                    axes.plot(
                        curve["thresholds"], values, label=label, linewidth=1.3, color=f"C{number}", linestyle=style
                    )
    if not axes.lines:
        return None
    axes.set(xlabel="threshold, share of the map's maximum", ylabel="images localized (%)", xlim=(0, 1), ylim=(0, 100))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure


def cases_figure(
    source: AnnotatedSource,
    images_file: Path,
    method: str,
    localize: Callable[[np.ndarray, np.ndarray], Localization],
    input_size: tuple[int, int],
) -> Figure | None:
    """A grid of the images whose box of the true class is best, then of those where it is worst.

    Args:
      source: the images.
      images_file: `images.csv` of the evaluation.
      method: whose boxes.
      localize: that method, from images and labels to a `Localization`.
      input_size: H and W of the images that it takes.

    Returns:
      The figure; None where no image was scored.
    """
    with images_file.open(newline="") as file:
        scored = [
            (float(row[f"{method}_iou"]), int(row["index"]), int(row["prediction"]))
            for row in csv.DictReader(file)
            if row["status"] == "scored"
        ]
    if not scored:
        return None
    # The first in the data set's order where the scores are equal, so that the figure is always the same.
    ordered = sorted(scored, key=lambda case: (-case[0], case[1]))
    number = min(CASES, len(ordered) // 2) or len(ordered)
    cases = ordered[:number] + (ordered[-number:] if len(ordered) > number else [])
    images = [source[index]["image"] for _, index, _ in cases]
    annotations = [source.annotation(index) for _, index, _ in cases]
    inputs = np.stack([resize_image(image, input_size) for image in images])
    out = localize(inputs, np.array([annotation.label for annotation in annotations], np.int32))
    names = source.info.class_names
    titles = [
        f"{names[a.label]}: IoU {iou:.2f}" + ("" if prediction == a.label else f", taken for {names[prediction]}")
        for a, (iou, _, prediction) in zip(annotations, cases, strict=True)
    ]
    return localization_figure(
        [_display(image) for image in images],
        list(np.asarray(out.maps)[:, -1]),
        list(np.asarray(out.boxes)[:, -1]),
        [annotation.boxes for annotation in annotations],
        titles,
        columns=number,
    )


def save_figures(directory: Path, figures: dict[str, Figure | None]) -> list[Path]:
    """Writes name -> figure as `name.png`, leaving out None; returns the paths."""
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            paths.append(directory / f"{name}.png")
            figure.savefig(paths[-1])
    return paths


def _display(image: np.ndarray, side: int = 400) -> np.ndarray:
    """The image, no larger than a figure shows it."""
    scale = min(1, side / max(image.shape[:2]))
    return resize_image(image, tuple(max(1, round(n * scale)) for n in image.shape[:2]))
