"""Which layer of a network to explain: the one whose maps are the most faithful on a few images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from camjax.attribution.adapters.nnx import explain_nnx, nnx_map_sizes
from camjax.attribution.methods import Needs, method_named
from camjax.errors import InputError
from camjax.evaluation.probabilities import probabilities_fn
from camjax.inference import make_cam_fn
from camjax.metrics.faithfulness.insertion_deletion import deletion_curve, insertion_curve
from camjax.models import CamModel
from camjax.models.vit import VisionTransformer

STEPS = 16
"""Of the curves: a sixteenth of the pixels at a time."""

BLOCKS = 4
"""Of a vision transformer: the last ones, whose input norms are measured."""


class LayerChoice(NamedTuple):
    """What was measured of a network's layers.

    Attributes:
      layer: the path of the one with the highest score.
      scores: layer -> the mean of insertion - deletion over the images, -1..1, in the order of computation.
      sizes: layer -> (h, w) of its map.
      num_images: over which the scores are means.
    """

    layer: str
    scores: dict[str, float]
    sizes: dict[str, tuple[int, int]]
    num_images: int

    def __str__(self) -> str:
        """One sentence of what was found."""
        found = ", ".join(
            f"{layer} ({height} x {width}) {self.scores[layer]:.3f}" for layer, (height, width) in self.sizes.items()
        )
        images = f"{self.num_images} images" if self.num_images > 1 else "1 image"
        return f"Layer {self.layer}: of {images} its maps have the highest insertion - deletion: {found}."


def choose_layer(
    model: CamModel, images: ArrayLike, method: str = "gradcam", *, layers: Sequence[str] | None = None, **options: Any
) -> LayerChoice:
    """Measures how faithful maps of several layers are, and chooses the layer with the most faithful ones.

    The criterion is insertion - deletion (Petsiuk et al. 2018): the score of the network's own answer while the most
    relevant pixels are put into a blurred copy, less that while they are removed; see `camjax.metrics.insertion_curve`.
    Both are areas under 16 steps. A choice by a few images holds for images like these.

    Args:
      model: a camjax model.
      images: (B, H, W, 3) RGB in 0..255; a few will do. Each costs 34 forward passes for each layer.
      method: of `camjax.attribution.METHODS`, one that is of a layer.
      layers: paths to choose from; None for `candidate_layers`, of a vision transformer the input norms of its last
        `BLOCKS` blocks.
      **options: of the method.

    Returns:
      `LayerChoice`. Print it to say what was found.

    Raises:
      ValueError: no images or layers, or as `camjax.make_cam_fn`.
    """
    images = np.asarray(images)
    if images.ndim != 4 or not len(images):
        raise InputError(f"images of shape {images.shape}: expected (B, H, W, 3), at least one.")
    sizes = nnx_map_sizes(model, images[:1])
    if layers is None:
        layers = list(sizes)[-BLOCKS:] if isinstance(model, VisionTransformer) else candidate_layers(sizes)
    layers = list(layers)
    if not layers:
        raise InputError(f"{type(model).__name__} has no layer with a map: expected one that returns (B, h, w, K).")
    score, scores = probabilities_fn(model), {}
    step = max(1, images.shape[1] * images.shape[2] // STEPS)
    ids, maps = _maps_of_layers(model, images, method, layers, options)
    for layer in layers:
        batch = score, images, maps[layer][:, 0], ids[:, 0]
        curves = insertion_curve(*batch, step=step), deletion_curve(*batch, step=step)
        inserted, deleted = (jax.device_get(curve.area) for curve in curves)
        scores[layer] = float(np.mean(inserted - deleted))
    best = max(reversed(layers), key=lambda layer: scores[layer])  # of equal ones the last in the network
    return LayerChoice(best, scores, {layer: sizes[layer] for layer in layers}, len(images))


def _maps_of_layers(
    model: CamModel, images: np.ndarray, method: str, layers: list[str], options: dict[str, Any]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The classes of the largest outputs, (B, 1), and for each layer the maps of these, (B, 1, h, w)."""
    row = method_named(method, options)
    if row.of_a_layer and row.needs is Needs.GRADIENTS and len(layers) > 1:
        # One program for all layers: compiling one for each takes most of the time.
        found = explain_nnx(model, layers, combine=None)(jnp.asarray(images), None, method, **options)
        assert found.class_ids is not None  # as for targets that are functions
        return found.class_ids, dict(zip(layers, found.maps, strict=True))
    ids, maps = None, {}
    for layer in layers:
        _, ids, maps[layer] = make_cam_fn(model, method, layer=layer, **options)(images, ids)
    assert ids is not None  # there are layers
    return ids, maps


def candidate_layers(sizes: dict[str, tuple[int, int]]) -> list[str]:
    """For each size of maps the last layer that has it: what a network knows at each resolution.

    Args:
      sizes: path -> (h, w), in the order of computation. Maps of one cell are left out, and layers inside a block where
        a block has maps of that size.

    Returns:
      Paths, in the same order.
    """
    inside = {name: sum(name.startswith(f"{block}.") for block in sizes) for name in sizes}
    last: dict[tuple[int, int], str] = {}
    for name, size in sizes.items():
        if size[0] * size[1] > 1 and (size not in last or inside[name] <= inside[last[size]]):
            last[size] = name
    return [name for name in sizes if name in last.values()]
