"""The maps of a text detector on tagged text, in numbers and in a figure."""

import numpy as np
from matplotlib.figure import Figure

import camjax
from camjax.features import batch_results
from camjax.metrics import PointingGame, PxAP
from camjax.metrics.localization.score_maps import SIZE
from camjax.models import CamModel
from camjax.terminal import Console, progress
from camjax.viz import localization_figure
from experiments.common.image_lists import Chosen
from experiments.common.map_figure import squashed
from experiments.common.sample import NAME as SAMPLE
from experiments.text_detector.images import TextImages

WITH_TEXT = 1
"""The class of images with text."""

IMAGES_SHOWN = 12


def score_maps(detector: CamModel, test: TextImages, batch_size: int, console: Console) -> dict[str, float]:
    """Measures where the maps of test images with tagged text fall.

    Returns:
      In percent: pointing_game, PxAP, and boxes_share, the mean share of pixels in boxes on PxAP's grid, which is
      chance for both; and tagged, the number of images.
    """
    cam_fn = camjax.make_cam_fn(detector)
    pointing, pxap, shares = PointingGame(), PxAP(), []
    tagged = np.array([index for index, boxes in enumerate(test.boxes) if len(boxes)])
    with progress("maps", console) as update:
        results = batch_results(
            lambda images, _: cam_fn(images, np.full(len(images), WITH_TEXT)).maps[:, 0],
            Chosen(test.source, tagged),
            detector.input_size,
            batch_size=batch_size,
            unreadable="mark",
            progress=update,
        )
        for batch, maps in results:
            boxes = [test.boxes[tagged[index]] for index in batch["index"][batch["mask"]]]
            pointing.update(maps, boxes, image_sizes=batch["image_size"][batch["mask"]])
            masks = [box_mask(of_image, SIZE) for of_image in boxes]
            pxap.update(maps, masks)
            shares += [mask.mean() for mask in masks]
    return {**pointing.compute(), **pxap.compute(), "boxes_share": 100 * float(np.mean(shares)), "tagged": len(shares)}


def box_mask(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, 4) boxes in 0..1 -> (H, W) uint8, 1 where the center of a pixel lies in a box, else 0."""
    rows, columns = ((np.arange(side) + 0.5) / side for side in size)
    ymin, xmin, ymax, xmax = np.reshape(boxes, (-1, 4)).T[:, :, None]
    inside_rows, inside_columns = (rows >= ymin) & (rows < ymax), (columns >= xmin) & (columns < xmax)
    return (inside_rows[:, :, None] & inside_columns[:, None, :]).any(0).astype(np.uint8)


def top_figure(detector: CamModel, test: TextImages, decisions: np.ndarray) -> Figure:
    """The test images with the largest decision values (n,), with maps, the paper's boxes, and those around text."""
    decisions = np.where(np.isfinite(decisions), decisions, -np.inf)
    chosen = np.argsort(-decisions, kind="stable")[: min(IMAGES_SHOWN, np.isfinite(decisions).sum())]
    images = [test.source[index]["image"] for index in chosen]
    localize_fn = camjax.make_localize_fn(detector)
    inputs = squashed(images, detector.input_size)
    out = localize_fn(inputs, np.full(len(chosen), WITH_TEXT))
    titles = [
        f"{place}: {decisions[index]:.2f}" + ("" if test.labels[index] else ", without text")
        for place, index in enumerate(chosen, 1)
    ]
    if test.source.info.name == SAMPLE:
        titles = [f"{SAMPLE} {title}" for title in titles]
    maps, boxes = np.asarray(out.maps)[:, 0], np.asarray(out.boxes)[:, 0]
    return localization_figure(images, list(maps), list(boxes), [test.boxes[index] for index in chosen], titles)
