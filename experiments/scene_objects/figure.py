"""Figure 9 of Zhou et al. 2016, maps of places and the objects that they show, and the same as a table."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from rich import box as boxes_of_rich
from rich.table import Table

import camjax
from camjax.data.images import resize_image
from camjax.features import FeatureStore
from camjax.figure_text import with_names
from camjax.models import CamModel
from camjax.viz import overlay
from experiments.common.map_figure import squashed
from experiments.scene_objects.places import LabeledPlaces

IMAGES_SHOWN = 3
_HEIGHT = 220


class Shown(NamedTuple):
    """An image of a place: image (H, W, 3) uint8, its raw map (h, w), and its label map (H, W)."""

    image: np.ndarray
    map: np.ndarray
    label_map: np.ndarray


def objects_table(found: Mapping[str, Mapping], accuracy: float | None, network: str, dataset: str) -> Table:
    """The two lists of objects of each place.

    Args:
      found: place -> images, frequent and informative, as the experiment's `run` returns them.
      accuracy: of the places, in 0..1; None where there was no cross-validation.
      network: its name.
      dataset: its name.
    """
    known = "" if accuracy is None else f"; {100 * accuracy:.1f} % of the scenes right in cross-validation"
    table = Table("scene", "images", "frequent", "in", "informative", "share", box=boxes_of_rich.SIMPLE_HEAD)
    table.title = f"Objects of scenes, {network} on {dataset}{known}"
    for place, result in found.items():
        cells = []
        for key, of in (("frequent", "frequency"), ("informative", "share")):
            cells.append("\n".join(entry["object"] for entry in result[key]))
            cells.append("\n".join(f"{entry[of]:.2f}" for entry in result[key]))
        table.add_row(place, f"{result['images']:,}", *cells, end_section=True)
    return table


def examples_figure(
    localizer: CamModel,
    kernel: np.ndarray,
    bias: np.ndarray,
    data: LabeledPlaces,
    store: FeatureStore,
    found: Mapping[str, Mapping],
) -> Figure:
    """The figure, with the images of each place that its machine scores highest.

    Args:
      localizer: the network with the SVMs as its head.
      kernel: (K, C) of the SVMs.
      bias: (C,) of the SVMs.
      data: the images.
      store: their features.
      found: as in `objects_table`.
    """
    shown = {}
    cam_fn = camjax.make_cam_fn(localizer)
    for label, place in enumerate(data.places):
        of_place = np.flatnonzero((data.labels == label) & store.readable)
        decisions = store[of_place] @ kernel[:, label] + bias[label]
        chosen = of_place[np.argsort(-decisions, kind="stable")[:IMAGES_SHOWN]]
        images = [data.source[index]["image"] for index in chosen]
        inputs = squashed(images, localizer.input_size)
        maps = np.asarray(cam_fn(inputs, np.full(len(chosen), label)).maps)[:, 0]
        label_maps = [data.label_map(index) for index in chosen]
        shown[place] = [Shown(*of_image) for of_image in zip(images, maps, label_maps, strict=True)]
    name = data.source.info.name
    heading = f"{name}: frequent objects (share of the images), and those that overlap the map's region (of theirs)"
    return places_figure(shown, found, heading)


def places_figure(shown: Mapping[str, Sequence[Shown]], found: Mapping[str, Mapping], heading: str) -> Figure:
    """A row for each place: its frequent and informative objects, then images under their maps with the latter.

    Args:
      shown: place -> at most `IMAGES_SHOWN` images.
      found: as in `objects_table`.
      heading: above the rows.
    """
    figure = Figure(figsize=(3.6 + 2.9 * IMAGES_SHOWN, 2.3 * len(shown) + 0.4), dpi=110, layout="constrained")
    figure.suptitle(heading, fontsize=11)
    axes = figure.subplots(len(shown), 1 + IMAGES_SHOWN, squeeze=False, width_ratios=[1.25, *[1] * IMAGES_SHOWN])
    for axis in axes.flat:
        axis.set_axis_off()
    for row, (place, images) in zip(axes, shown.items(), strict=True):
        informative = found[place]["informative"]
        _write(row[0], place, found[place]["frequent"], informative)
        for axis, one in zip(row[1:], images, strict=False):
            _draw(axis, one, informative)
    return with_names(figure)


def _write(axis, place: str, frequent: Sequence[Mapping], informative: Sequence[Mapping]) -> None:
    """The two lists, below the place's name."""
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.text(0, 1, place.replace("_", " "), fontsize=11, weight="bold", va="top")
    for x, title, entries, key in ((0, "frequent", frequent, "frequency"), (0.5, "informative", informative, "share")):
        axis.text(x, 0.86, title, fontsize=8.5, style="italic", va="top")
        for line_number, entry in enumerate(entries):
            line = f"{textwrap.shorten(entry['object'], 16, placeholder='…')} {entry[key]:.2f}"
            axis.text(x, 0.74 - 0.12 * line_number, line, fontsize=8.5, va="top")


def _draw(axis, shown: Shown, informative: Sequence[Mapping]) -> None:
    height, width = shown.image.shape[:2]
    size = _HEIGHT, max(1, round(_HEIGHT * width / height))
    axis.imshow(overlay(resize_image(shown.image, size), shown.map), extent=(0, width, height, 0))
    across, down = np.arange(width) + 0.5, np.arange(height) + 0.5
    for entry in informative:
        mask = shown.label_map == entry["id"]
        if not mask.any():
            continue
        if not mask.all():
            # A dark line below, so that the outline shows on any color.
            for color, line_width in (("#101010", 2.2), ("white", 1)):
                axis.contour(across, down, mask, levels=[0.5], colors=[color], linewidths=line_width)
        # The name is written where the object is widest.
        depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        text = axis.text(x, y, entry["object"], color="white", fontsize=7, ha="center", va="center", clip_on=True)
        text.set_path_effects([withStroke(linewidth=2, foreground="#101010")])
    axis.set(xlim=(0, width), ylim=(height, 0))
