"""Boxes in one convention: [ymin, xmin, ymax, xmax] in 0..1 of the image, half-open, as in tensorflow-datasets."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from camjax.cam import resize_map
from camjax.components import largest_component
from camjax.errors import InputError


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
    component = largest_component(mask)
    y0, y1, valid = _extent(component.any(-1))
    x0, x1, _ = _extent(component.any(-2))
    # From a table: XLA divides by a constant by multiplying by its inverse, so that 41 / 41 would not be 1.
    of_height, of_width = (jnp.asarray(np.arange(n + 1) / n, jnp.float32) for n in component.shape[-2:])
    return jnp.stack([of_height[y0], of_width[x0], of_height[y1], of_width[x1]], axis=-1), valid


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
    maps = resize_map(maps, size)
    maximum = maps.max((-2, -1))
    has_region = (maximum > 0) & jnp.isfinite(maps).all((-2, -1))
    threshold, maximum, has_region = jnp.broadcast_arrays(jnp.asarray(threshold, maps.dtype), maximum, has_region)
    mask = (maps > (threshold * maximum)[..., None, None]) & has_region[..., None, None]
    return largest_component_box(mask)


def box_area(boxes: jax.Array) -> jax.Array:
    """(..., 4) boxes -> (...) areas as a share of the image; 0 for a box with its edges in the wrong order."""
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


def _extent(line: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(..., n) bool -> index of the first True, one past the last, and whether there is any; 0, 0, False if none."""
    any_on = line.any(-1)
    first = line.argmax(-1)
    end = line.shape[-1] - line[..., ::-1].argmax(-1)
    return jnp.where(any_on, first, 0), jnp.where(any_on, end, 0), any_on
