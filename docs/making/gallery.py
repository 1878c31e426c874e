"""The gallery's figures: every method of `METHODS`, by four photographs."""

import functools
from collections.abc import Iterable

import jax
import numpy as np
from matplotlib.figure import Figure
from skimage import data

import camjax
from camjax.attribution import METHODS
from camjax.attribution.methods import Needs
from camjax.data.images import resize_image
from camjax.errors import InputError
from camjax.inference import make_localize_fns
from camjax.viz import comparisons_figure

ACROSS = 5  # methods in a figure
SIDE = 160  # pixels of a photograph in a figure

LAYERS = dict.fromkeys(("scorecam", "sscam", "iscam"), "blocks.10")
"""The layer of methods that run the network for each channel: 112 of 14 x 14 cells, in place of 1,280 of 7 x 7."""

OPTIONS = {"sscam": {"num_samples": 2}, "iscam": {"num_samples": 2}, "rise": {"num_masks": 500}}
"""How methods are called that run the network thousands of times by default."""


@functools.cache
def network():
    """The network, the ids of its most probable classes (4, 1), and their probabilities (4, 1)."""
    model = camjax.load_model("efficientnet_lite0")
    out = camjax.make_cam_fn(model)(photographs(model.input_size))
    probabilities = np.asarray(jax.nn.softmax(out.logits))
    return model, np.asarray(out.class_ids), np.take_along_axis(probabilities, np.asarray(out.class_ids), 1)


@functools.cache
def photographs(size: tuple[int, int]) -> np.ndarray:
    """scikit-image's cat, cup, motorcycle and photographer: (4, H, W, 3) uint8."""
    gray = data.camera()
    pictures = (data.chelsea(), data.coffee(), data.stereo_motorcycle()[0], np.stack([gray] * 3, -1))
    return np.stack([resize_image(picture, size) for picture in pictures])


def methods(*needs: Needs) -> list[str]:
    """The names of the methods that need one of these."""
    return [name for name, row in METHODS.items() if row.needs in needs]


def figures(names: Iterable[str]) -> tuple[list[Figure], list[str]]:
    """Figures of at most five methods each, and a sentence for each method that this network has no map by."""
    model, class_ids, probabilities = network()
    together: dict[tuple, list[str]] = {}  # one program for the methods of each image size and layer
    without = []
    for name in names:
        layer = LAYERS.get(name)
        try:
            make_localize_fns(model, [name], layer=layer)
        except InputError as error:
            without.append(f"`{name}`: {error}")
        else:
            together.setdefault((METHODS[name].image_size(model), layer), []).append(name)
    found = {}
    for (size, layer), of_group in together.items():
        options = {name: OPTIONS.get(name, {}) for name in of_group}
        localize = make_localize_fns(model, of_group, layer=layer, options=options, top_boxes=False)
        found |= jax.device_get({name: both.asked for name, both in localize(photographs(size), class_ids).items()})
    drawn = []
    shown_in_order = [name for name in names if name in found]
    for start in range(0, len(shown_in_order), ACROSS):
        shown = shown_in_order[start : start + ACROSS]
        drawn.append(
            comparisons_figure(
                photographs((SIDE, SIDE)),
                [[found[name].maps[i] for name in shown] for i in range(len(class_ids))],
                [[found[name].boxes[i] for name in shown] for i in range(len(class_ids))],
                shown,
                [[model.class_names[ids[0]].partition(",")[0]] for ids in class_ids],
                probabilities,
                dpi=110,
            )
        )
    return drawn, without
