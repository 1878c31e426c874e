"""Connected components of a mask, on device, inside `jit`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from camjax.errors import InputError
from camjax.sharding import laid_out_like


@laid_out_like(0, trailing=2)
def largest_component(mask: jax.Array) -> jax.Array:
    """The largest 8-connected component of each mask.

    Args:
      mask: (..., H, W) bool.

    Returns:
      (..., H, W) bool: the component with the most pixels; of equals, the one whose first pixel comes first in
      raster order. All False for an empty mask.

    Raises:
      ValueError: not a boolean array of rank 2 or more with at least one pixel.
    """
    mask = _checked(mask)
    *lead, height, width = mask.shape
    if 0 in lead:
        return mask
    blocks = _blocks(mask.reshape(-1, height, width))
    m, rows, columns = blocks.shape[:3]
    labels = _component_labels(blocks)

    # A component's area is stored at the index of its first block, so the maximum over blocks is over components.
    area = _area(blocks, labels)
    largest = _at(area, labels) == area.max(1, keepdims=True)

    # Of equals, the one with the first pixel. Blocks are not in raster order: in a row of blocks all upper pixels come
    # before all lower ones.
    y, x = _coordinates(blocks)
    candidates = blocks & largest.reshape(m, rows, columns, 1, 1)
    place = jnp.where(candidates, y * (2 * columns) + x, jnp.iinfo(jnp.int32).max).min((-2, -1)).reshape(m, -1)
    first = jnp.take_along_axis(labels, place.argmin(1)[:, None], axis=1)
    chosen = blocks & (labels == first).reshape(m, rows, columns, 1, 1)
    pixels = chosen.swapaxes(2, 3).reshape(m, 2 * rows, 2 * columns)
    return pixels[:, 2 : height + 2, 2 : width + 2].reshape(*lead, height, width)


class Components(NamedTuple):
    """The components of masks, of which each has up to S; `area` is 0 at the places that hold none.

    Attributes:
      area: (..., S) int32: pixels of each component.
      peak: (..., S) float32: the highest value within it.
      edges: (..., S, 4) int32: y0, x0 of its first row and column, y1, x1 one past its last.
    """

    area: jax.Array
    peak: jax.Array
    edges: jax.Array


@laid_out_like(0, trailing=2)
def describe_components(mask: jax.Array, values: jax.Array) -> Components:
    """Areas, peaks and extents of all 8-connected components of each mask.

    Args:
      mask: (..., H, W) bool.
      values: (..., H, W) float32, whose maximum in each component is wanted.

    Returns:
      `Components`; S depends on H and W alone. Components are in the raster order of their first 2x2 blocks of pixels.

    Raises:
      ValueError: as `largest_component`.
    """
    mask = _checked(mask)
    *lead, height, width = mask.shape
    blocks = _blocks(mask.reshape(-1, height, width))
    heights = _blocks(jnp.asarray(values, jnp.float32).reshape(-1, height, width))
    labels = _component_labels(blocks)
    y, x = _coordinates(blocks)

    def highest(of_pixels, empty):
        of_blocks = jnp.where(blocks, of_pixels, empty).max((-2, -1)).reshape(labels.shape)
        return _scatter("max", jnp.full_like(of_blocks, empty), labels, of_blocks).reshape(*lead, -1)

    # The blocks have a border of two pixels, above and to the left.
    low = [-highest(-at, jnp.iinfo(jnp.int32).min + 2) - 2 for at in (y, x)]
    high = [highest(at, 1) - 1 for at in (y, x)]
    edges = jnp.stack([*low, *high], axis=-1)
    return Components(_area(blocks, labels).reshape(*lead, -1), highest(heights, -jnp.inf), edges)


def _checked(mask: jax.Array) -> jax.Array:
    mask = jnp.asarray(mask)
    if mask.ndim < 2 or mask.dtype != jnp.bool_ or 0 in mask.shape[-2:]:
        raise InputError(
            f"mask of shape {mask.shape} and dtype {mask.dtype}: expected (..., H, W) bool with at least one pixel; "
            "a map becomes a mask by a threshold, as in `map > 0.2 * map.max()`."
        )
    return mask


def _area(blocks: jax.Array, labels: jax.Array) -> jax.Array:
    """(M, S) the pixels of each component, at the index of its first block; 0 elsewhere."""
    pixels = blocks.sum((-2, -1), dtype=jnp.int32).reshape(labels.shape)
    return _scatter("add", jnp.zeros_like(pixels), labels, pixels)


# Each mask's indices are its own, so that the compiler sees that masks on several devices need nothing of each other.


def _at(values: jax.Array, labels: jax.Array) -> jax.Array:
    """(M, S) values of each mask, at indices (M, S) within it."""
    return jnp.take_along_axis(values, labels, axis=1, mode="promise_in_bounds")


def _scatter(how: str, values: jax.Array, labels: jax.Array, updates: jax.Array) -> jax.Array:
    """(M, S) values of each mask, with updates (M, S) brought in ("min", "max" or "add") at indices within it."""

    def of_mask(values, labels, updates):
        return getattr(values.at[labels], how)(updates, mode="promise_in_bounds")

    return jax.vmap(of_mask)(values, labels, updates)


def _coordinates(blocks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The row and the column of each pixel of blocks, the border counted."""
    rows, columns, lower, right = (lax.broadcasted_iota(jnp.int32, blocks.shape, axis) for axis in (1, 2, 3, 4))
    return 2 * rows + lower, 2 * columns + right


def _blocks(mask: jax.Array) -> jax.Array:
    """(M, H, W) as (M, rows, columns, 2, 2) blocks of pixels, with a border of empty blocks."""
    m, height, width = mask.shape
    rows, columns = (2 - (-side // 2) for side in (height, width))
    padded = jnp.pad(mask, ((0, 0), (2, 2 * rows - height - 2), (2, 2 * columns - width - 2)))
    return padded.reshape(m, rows, 2, columns, 2).swapaxes(2, 3)


def _component_labels(blocks: jax.Array) -> jax.Array:
    """Labels the components of all masks at once; a label is the index of a component's first block in its mask.

    Under 8-connectivity the pixels of a 2x2 block that are on are connected: a block is a node, and the graph has a
    quarter as many nodes as the image has pixels. Components come from a parallel union-find like FastSV (Zhang, Azad
    and Hu 2020, "FastSV: a distributed-memory connected component algorithm with fast convergence", algorithm 2):
    every node holds a parent, and a round hooks trees onto the least parent among the neighbors, then shortens all
    paths to a quarter. It ends when no parent changes: after 4 to 5 rounds on masks of class activation maps of 224x224
    pixels, 8 on a spiral through all of it, where propagating labels from pixel to pixel takes hundreds.

    Args:
      blocks: (M, rows, columns, 2, 2) bool, with a border of empty blocks.

    Returns:
      (M, rows * columns) int32. An empty block keeps its own index.
    """
    m, rows, columns = blocks.shape[:3]
    count = rows * columns
    top_left, top_right, bottom_left, bottom_right = (
        blocks[..., y, x].reshape(m, count) for y in (0, 1) for x in (0, 1)
    )
    top, bottom = top_left | top_right, bottom_left | bottom_right
    left, right = top_left | bottom_left, top_right | bottom_right

    # A neighbor is a fixed distance away in a mask's flat order. The first and the last `margin` nodes are border, and
    # have no neighbors; the border also keeps one row's end from the next one's beginning.
    margin = columns + 1

    def at(nodes, distance):
        return lax.slice_in_dim(nodes, margin + distance, count - margin + distance, axis=1)

    neighbors = {
        distance: at(own, 0) & at(other, distance)
        for distance, own, other in (
            (-columns - 1, top_left, bottom_right),
            (-columns, top, bottom),
            (-columns + 1, top_right, bottom_left),
            (-1, left, right),
            (1, right, left),
            (columns - 1, bottom_left, top_right),
            (columns, bottom, top),
            (columns + 1, bottom_right, top_left),
        )
    }

    def least_near(parent):
        least = at(parent, 0)
        for distance, linked in neighbors.items():
            least = jnp.minimum(least, jnp.where(linked, at(parent, distance), count))
        return jnp.minimum(parent, jnp.pad(least, ((0, 0), (margin, margin)), constant_values=count))

    def one_round(state):
        parent, _ = state
        least = least_near(parent)
        hooked = _scatter("min", least, parent, least)
        shortcut = _at(hooked, hooked)
        shortcut = _at(shortcut, shortcut)
        return shortcut, (shortcut != parent).any()

    alone = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32), (m, count))
    start = least_near(alone)
    labels, _ = lax.while_loop(lambda state: state[1], one_round, (start, (start != alone).any()))
    return labels
