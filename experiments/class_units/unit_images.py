"""Single units of a network's last feature map: the images that they respond to most, and where in them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from camjax.cam import resize_map
from camjax.data.rows import RandomAccessSource
from camjax.features import Progress, ReceptiveFields, batch_results, unreadable_because
from camjax.figure_text import with_names
from camjax.models import CamModel, fold_batchnorm
from camjax.models.head import global_pool
from camjax.models.inference_mode import inference_view, run_for_inference
from experiments.common.map_figure import squashed

DARK = 0.3
"""The share of the brightness that is kept outside of a unit's region."""


class TopImages(NamedTuple):
    """The n images to which each of K units responds most: the maximum of its map over space.

    Attributes:
      values: (K, n) float32, falling; -inf after the last image where there are fewer than n.
      indices: (K, n) int32 in the source, -1 after the last image. Equal responses are in the order of the source.
      unreadable: index -> what was wrong, for the images that could not be read.
    """

    values: np.ndarray
    indices: np.ndarray
    unreadable: dict[int, str]


def class_units(kernel: np.ndarray, class_id: int, count: int) -> np.ndarray:
    """The units that matter most for a class (Zhou et al. 2016, section 5): those of the largest weights.

    Args:
      kernel: (K, C) of the dense layer after the pooling.
      class_id: c.
      count: of units.

    Returns:
      (count,) units k by falling w[k, c]; equal ones by k.
    """
    return np.argsort(-np.asarray(kernel)[:, class_id], kind="stable")[:count]


def top_images(
    model: CamModel,
    source: RandomAccessSource,
    count: int,
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> TopImages:
    """The images to which each unit of the last feature map responds most, in one pass and constant memory.

    Args:
      model: has `features(images) -> (B, h, w, K)`; runs in inference mode.
      source: the images, squashed to the model's input size.
      count: n, images of each unit.
      batch_size: images at a time.
      progress: as in `camjax.features.map_images`.

    Returns:
      `TopImages`.

    Raises:
      ValueError: there is no image, or none that can be read.
    """
    snapshot = fold_batchnorm(model)
    values: np.ndarray = np.full((0, count), -np.inf, np.float32)  # K is known from the first batch
    indices: np.ndarray = np.full((0, count), -1, np.int32)
    unreadable: dict[int, str] = {}
    for batch, responses in batch_results(
        lambda images, _: _responses(snapshot, images),
        source,
        model.input_size,
        batch_size=batch_size,
        unreadable="mark",
        progress=progress,
    ):
        for index in batch["index"][~batch["mask"] & (batch["index"] >= 0)].tolist():
            unreadable[index] = unreadable_because(source, index)
        if not len(values):
            values = np.full((responses.shape[1], count), -np.inf, np.float32)
            indices = np.full(values.shape, -1, np.int32)
        here = np.broadcast_to(batch["index"][batch["mask"]], responses.T.shape)
        values = np.concatenate([values, responses.T], axis=1)
        indices = np.concatenate([indices, here], axis=1)
        # Kept images stand in front and come earlier in the source: a stable sort leaves equal ones in this order.
        best = np.argsort(-values, axis=1, kind="stable")[:, :count]
        values, indices = (np.take_along_axis(both, best, axis=1) for both in (values, indices))
    return TopImages(values, indices, unreadable)


def unit_maps_fn(model: CamModel) -> Callable[[Sequence[np.ndarray], int], tuple[np.ndarray, np.ndarray]]:
    """A function of images (of any sizes) and a unit k, bound to a snapshot of a network.

    It returns the images squashed to the input size, (n, H, W, 3) uint8, and the maps of the unit, (n, h, w) float32.
    """
    snapshot = fold_batchnorm(model)

    def unit_maps(images: Sequence[np.ndarray], unit: int) -> tuple[np.ndarray, np.ndarray]:
        inputs = squashed(images, model.input_size)
        return inputs, np.asarray(_unit_maps(snapshot, inputs, unit))

    return unit_maps


class Region(NamedTuple):
    """The part of an image that a unit responds to.

    Attributes:
      mask: (H, W) bool.
      position: (y, x) of the map's maximum, the first in raster order.
      field: that position's receptive field in pixels, (top, left, bottom, right), half-open.
    """

    mask: np.ndarray
    position: tuple[int, int]
    field: tuple[int, int, int, int]


def unit_region(unit_map: np.ndarray, fields: ReceptiveFields, threshold: float) -> Region:
    """The region where a unit's map exceeds a share of its maximum, within the receptive field of the maximum.

    Args:
      unit_map: (h, w), of an image of `fields.size` pixels.
      fields: the network's receptive fields for images of that size.
      threshold: share of the maximum of the resized map (bilinear, half-pixel centers).

    Returns:
      `Region`; its mask is empty where the maximum is not positive.
    """
    resized = np.asarray(resize_map(jnp.asarray(unit_map), fields.size))
    y, x = map(int, np.unravel_index(np.argmax(unit_map), unit_map.shape))
    (top, bottom), (left, right) = fields.rows[y].tolist(), fields.columns[x].tolist()
    within = np.zeros(fields.size, bool)
    within[top:bottom, left:right] = True
    return Region((resized > max(threshold * resized.max(), 0)) & within, (y, x), (top, left, bottom, right))


def darkened(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) uint8 with `DARK` of its brightness where the mask (H, W) is False."""
    return np.where(mask[..., None], image, np.rint(DARK * image)).astype(np.uint8)


def units_figure(rows: Sequence[tuple[str, Sequence[np.ndarray]]], heading: str) -> Figure:
    """A row of segmented images for each unit, with a label on its left, as in section 5 of Zhou et al. 2016.

    Args:
      rows: of each unit a label, and its images, (H, W, 3) uint8 of one size.
      heading: of the figure.

    Returns:
      A matplotlib figure that needs no display.
    """
    columns = max(len(images) for _, images in rows)
    height, width = rows[0][1][0].shape[:2]
    size = 1.6 * columns + 1.2, 1.6 * height / width * len(rows) + 0.4
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=size, dpi=120, layout=layout)
    figure.suptitle(heading, fontsize=11)
    for axes, (label, images) in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        for axis in axes:
            axis.set(xticks=[], yticks=[], frame_on=False)
        for axis, image in zip(axes, images, strict=False):
            axis.imshow(image)
        axes[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    return with_names(figure)


@jax.jit
def _responses(model: CamModel, images: jax.Array) -> jax.Array:
    """(B, H, W, 3) images -> (B, K) float32."""
    return global_pool(run_for_inference(inference_view(model).features, images), "gmp")


@jax.jit
def _unit_maps(model: CamModel, images: jax.Array, unit: int) -> jax.Array:
    """(B, H, W, 3) images -> (B, h, w) float32."""
    return run_for_inference(inference_view(model).features, images)[..., unit].astype("float32")
