"""Boxes in one convention: [ymin, xmin, ymax, xmax] in 0..1 of the image, half-open, as in tensorflow-datasets."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim
from jax.typing import ArrayLike

from camjax.cam import resize_map
from camjax.components import describe_components, largest_component
from camjax.errors import InputError
from camjax.sharding import laid_out_like


class ScoredBoxes(NamedTuple):
    """K boxes of each map.

    Attributes:
      boxes: (..., K, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1; zeros where not valid.
      peaks: (..., K) float32 in 0..1: the maximum of the map within the box's component, as a share of the maximum of
        the whole map: 1 for the component that holds it. Zero where not valid.
      valid: (..., K) bool: whether there is such a box. Those that are come first.
    """

    boxes: jax.Array
    peaks: jax.Array
    valid: jax.Array


@laid_out_like(0, trailing=2)
def largest_component_box(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The bounding box of the largest 8-connected component of each mask (Zhou et al. 2016, section 3.2).

    Args:
      mask: (..., H, W) bool.

    Returns:
      boxes: (..., 4) float32 `[y0 / H, x0 / W, (y1 + 1) / H, (x1 + 1) / W]` of the component's first and last rows
        y0, y1 and columns x0, x1. Of components of equal size, the one that comes first in raster order.
      valid: (...) bool: False for an empty mask, whose box is zeros.

    Raises:
      ValueError: not a boolean array of rank 2 or more with at least one pixel.
    """
    return _box_of(largest_component(mask))


@laid_out_like(0, trailing=2)
def boxes_from_maps(maps: jax.Array, size: tuple[int, int], threshold: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The paper's box of each map (Zhou et al. 2016, section 3.2): from any method's maps to boxes.

    The box is that of the largest 8-connected component of the region where the map, resized to the image's size
    (bilinear, half-pixel centers), is strictly above `threshold` times its maximum. A map whose maximum is not
    positive, or that holds a NaN, has no region.

    Args:
      maps: (..., h, w) raw maps.
      size: (H, W) of the image in pixels.
      threshold: share of the maximum of the resized map, 0 <= threshold < 1; a number, or an array that broadcasts
        with (...). The paper's is 0.2.

    Returns:
      boxes: (..., 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1; zeros where not valid.
      valid: (...) bool: whether the map has a region.
    """
    return largest_component_box(_regions(maps, size, threshold)[0])


@laid_out_like(0, trailing=2)
def scored_box_from_maps(maps: jax.Array, size: tuple[int, int], threshold: ArrayLike) -> ScoredBoxes:
    """The box of `boxes_from_maps` with its score; arguments as there.

    Returns:
      `ScoredBoxes` with K = 1.
    """
    mask, shares = _regions(maps, size, threshold)
    component = largest_component(mask)
    box, valid = _box_of(component)
    peak = jnp.where(component, shares, 0).max((-2, -1))
    return ScoredBoxes(box[..., None, :], peak[..., None], valid[..., None])


@laid_out_like(0, trailing=2)
def component_boxes_from_maps(
    maps: jax.Array, size: tuple[int, int], threshold: ArrayLike, *, max_boxes: int = 10, min_area: ArrayLike = 0.0
) -> ScoredBoxes:
    """The boxes of all 8-connected components of each map's region, with their scores.

    The paper's box rule (see `boxes_from_maps`) takes the largest component alone. In an image with several objects of
    a class each of them may have a component of its own, whose peak says how strong the evidence is, as in peak
    response maps (Zhou, Y. et al. 2018, "Weakly supervised instance segmentation using class peak response").

    Args:
      maps: as in `boxes_from_maps`.
      size: as in `boxes_from_maps`.
      threshold: as in `boxes_from_maps`.
      max_boxes: K, at least 1: of a map with more components, those with the highest peaks.
      min_area: share of the image's pixels, in 0..1, that a component has to have.

    Returns:
      `ScoredBoxes`, by falling peak.

    Raises:
      ValueError: max_boxes below 1.
    """
    if max_boxes < 1:
        raise InputError(f"max_boxes={max_boxes}: expected at least 1.")
    mask, shares = _regions(maps, size, threshold)
    height, width = mask.shape[-2:]
    found = describe_components(mask, jnp.broadcast_to(shares, mask.shape))
    large = (found.area > 0) & (found.area >= jnp.asarray(min_area, jnp.float32) * (height * width))
    order = jnp.where(large, found.peak, -1)
    missing = max(0, max_boxes - order.shape[-1])
    order = jnp.pad(order, [(0, 0)] * (order.ndim - 1) + [(0, missing)], constant_values=-1)
    peaks, chosen = jax.lax.top_k(order, max_boxes)
    valid = peaks >= 0
    edges = jnp.take_along_axis(found.edges, jnp.minimum(chosen, found.area.shape[-1] - 1)[..., None], axis=-2)
    boxes = jnp.where(valid[..., None], _shares(edges, (height, width)), 0)
    return ScoredBoxes(boxes, jnp.where(valid, peaks, 0), valid)


def box_area(boxes: jax.Array) -> jax.Array:
    """Areas of boxes.

    Args:
      boxes: (..., 4) `[ymin, xmin, ymax, xmax]` in 0..1.

    Returns:
      (...) shares of the image; 0 for a box with its edges in the wrong order.
    """
    boxes = jnp.asarray(boxes)
    return jnp.prod(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


def box_iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Intersection over union of boxes, taken pairwise.

    Args:
      a: (..., 4) boxes `[ymin, xmin, ymax, xmax]`, in any one unit.
      b: (..., 4) boxes in the same unit; leading dimensions broadcast against those of `a`.

    Returns:
      (...) float32 in 0..1; 0 where the union is empty.

    Raises:
      ValueError: a last dimension that is not 4.
    """
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    if a.shape[-1:] != (4,) or b.shape[-1:] != (4,):
        raise InputError(f"boxes of shapes {a.shape} and {b.shape}: expected (..., 4), [ymin, xmin, ymax, xmax].")
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., 2:], b[..., 2:])
    intersection = box_area(jnp.concatenate([low, high], axis=-1))
    union = box_area(a) + box_area(b) - intersection
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1), 0)


def _regions(maps: jax.Array, size: tuple[int, int], threshold: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The region of each map (..., H, W) bool, see `boxes_from_maps`, and the resized map as a share of its maximum.

    The shares of a map without a region are zeros.
    """
    maps = resize_map(maps, size)
    maximum = maps.max((-2, -1))
    has_region = (maximum > 0) & jnp.isfinite(maps).all((-2, -1))
    shares = jnp.where(has_region[..., None, None], maps / jnp.where(has_region, maximum, 1)[..., None, None], 0)
    threshold, maximum, has_region = jnp.broadcast_arrays(jnp.asarray(threshold, maps.dtype), maximum, has_region)
    return (maps > (threshold * maximum)[..., None, None]) & has_region[..., None, None], shares


def _box_of(component: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(..., H, W) bool -> the box around all that is True, and whether there is any."""
    y0, y1, valid = _extent(component.any(-1))
    x0, x1, _ = _extent(component.any(-2))
    return _shares(jnp.stack([y0, x0, y1, x1], axis=-1), component.shape[-2:]), valid


def _shares(edges: jax.Array, size: Sequence[int]) -> jax.Array:
    """(..., 4) edges y0, x0, y1, x1 between pixels -> shares of an image of (H, W) pixels, float32."""
    # XLA divides by a constant by multiplying by its inverse, so that 41 / 41 would not be 1. Hence from a table; or,
    # of symbolic sizes, by what it takes for no constant.
    if any(map(is_symbolic_dim, size)):
        sides = jnp.stack([jnp.asarray(size[i % 2], edges.dtype) for i in range(4)])
        return edges.astype(jnp.float32) / jnp.where(edges < 0, 1, sides).astype(jnp.float32)
    of_height, of_width = (jnp.asarray(np.arange(n + 1) / n, jnp.float32) for n in size)
    return jnp.stack([(of_height, of_width)[i % 2][edges[..., i]] for i in range(4)], axis=-1)


def _extent(line: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(..., n) bool -> index of the first True, one past the last, and whether there is any; 0, 0, False if none."""
    any_on = line.any(-1)
    first = line.argmax(-1)
    end = line.shape[-1] - line[..., ::-1].argmax(-1)
    return jnp.where(any_on, first, 0), jnp.where(any_on, end, 0), any_on
