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
from camjax.viz import comparisons_figure

ACROSS = 5  # methods in a figure
SIDE = 160  # pixels of a photograph in a figure

MANY_PASSES = {
    "scorecam": {"layer": "blocks.10"},
    "sscam": {"layer": "blocks.10", "num_samples": 2},
    "iscam": {"layer": "blocks.10", "num_samples": 2},
    "rise": {"num_masks": 500},
}
"""Methods that run the network for each channel, or for thousands of masks, as they are called here."""


@functools.cache
def network():
    """The network, and in its first methods' words what it sees: class ids, and their probabilities."""
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
    found, without = {}, []
    for name in names:
        try:
            localize_fn = camjax.make_localize_fn(model, name, **MANY_PASSES.get(name, {}))
            found[name] = jax.device_get(localize_fn(photographs(METHODS[name].image_size(model)), class_ids))
        except InputError as error:
            without.append(f"`{name}`: {error}")
    drawn = []
    for start in range(0, len(found), ACROSS):
        shown = list(found)[start : start + ACROSS]
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
