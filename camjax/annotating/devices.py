"""Images to scored boxes, on a device."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from camjax.annotating.options import BOX_RULES, Options
from camjax.annotating.records import Found
from camjax.attribution.methods import method_named
from camjax.boxes import ScoredBoxes
from camjax.cam import class_probabilities
from camjax.errors import InputError
from camjax.inference import CamOutput, make_cam_fn
from camjax.models import CamModel
from camjax.outputs import BoundNetwork


def make_find_fn(model: CamModel | BoundNetwork, options: Options) -> Callable[[Any], Found]:
    """Binds a snapshot of a model into a function from images (B, H, W, 3) to `Found`, all of it on the device.

    Raises:
      ValueError: classes out of range, several thresholds for a method whose box rule has none, or what
        `camjax.make_cam_fn` raises.
    """
    method = method_named(options.method)
    count = method.num_classes(model)
    if wrong := [i for i in options.classes if not 0 <= i < count]:
        raise InputError(f"classes={wrong}: out of range, the network has classes 0..{count - 1}.")
    own_rule = method.host_boxes if options.boxes == "paper" else None
    if own_rule and len(options.thresholds) > 1:
        raise InputError(
            f"{method.name} has a box rule of its own, without a threshold: give one threshold, or boxes='components'."
        )
    cam_fn = make_cam_fn(model, method.name, top_k=None if options.classes else options.top_k)
    class_ids = np.array(options.classes, np.int32) if options.classes else None
    thresholds = np.array(options.thresholds, np.float32)
    rule = functools.partial(BOX_RULES[options.boxes], options=options)
    keep_maps = options.maps or options.overlays

    @functools.partial(jax.jit, static_argnums=1)
    def finish(out: CamOutput, size: tuple[int, int], given: ScoredBoxes | None) -> Found:
        probabilities = jnp.take_along_axis(class_probabilities(out.logits), out.class_ids, axis=1)
        boxes = rule(out.maps[:, :, None], size, thresholds) if given is None else given
        return Found(out.class_ids, probabilities, *boxes, out.maps if keep_maps else None)

    def find(images):
        ids = None if class_ids is None else np.broadcast_to(class_ids, (len(images), len(class_ids)))
        out = cam_fn(images, ids)
        given = None
        if own_rule:
            boxes, valid = (x[:, :, None, None] for x in own_rule(images, out.maps))
            given = ScoredBoxes(boxes, valid.astype(np.float32), valid)
        return finish(out, images.shape[1:3], given)

    return find
