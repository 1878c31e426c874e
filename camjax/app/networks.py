"""The networks that the page offers: loading them, and maps, boxes and figures of pictures."""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from camjax.app.cache import Cache
from camjax.app.pictures import SHOWN_SIDE, Pictures
from camjax.attribution.methods import METHODS, Method, method_named
from camjax.boxes import boxes_from_maps
from camjax.cam import class_probabilities
from camjax.checks import check_threshold
from camjax.data.images import resize_image, shrink_image
from camjax.errors import InputError
from camjax.inference import BoundFunction, make_cam_fn
from camjax.models import CamModel
from camjax.models.inference_mode import inference_view, run_for_inference
from camjax.models.layers import fold_batchnorm
from camjax.viz import comparison_figure, explanation_figure

MAX_MAPS = 64
"""Maps that one request may ask for: classes times methods."""
MAX_WAITING = 16
"""Requests that may wait for a network at a time."""
_KEPT_BYTES = 128 << 20


LEFT: ContextVar[Callable[[], bool]] = ContextVar("LEFT", default=lambda: False)
"""Says whether the one who asked has left, so that nothing is computed for nobody."""


class Busy(InputError):
    """Too many requests wait for a network."""


class Left(InputError):
    """The one who asked has left."""


class Map(NamedTuple):
    """A map of one class.

    Attributes:
      values: (h, w) float32, raw.
      box: (4,) `[ymin, xmin, ymax, xmax]` in 0..1, of a method whose box does not depend on the threshold, or None
        if the map has no region; `LATER` where the threshold decides.
    """

    values: np.ndarray
    box: Any


LATER = "by the threshold"


class Offered:
    """A network that is loaded.

    Args:
      model: with what at least one method needs.
      progress: called with a method's name, and how many changed images of how many its network has seen.

    Attributes:
      class_names: of its classes, or None.
      num_classes: C.
      methods: those of `METHODS` for which the network has what they need.
      logits_fn: images -> logits.
      cam_fn: `camjax.make_cam_fn` of a method.
    """

    def __init__(self, model: CamModel, progress: Callable[[str, int, int], None]):
        self.class_names = None if model.class_names is None else tuple(model.class_names)
        self.num_classes = model.head.num_classes
        self.methods = [row for row in METHODS.values() if _has_what_it_needs(model, row)]
        self.input_size = model.input_size
        # Folded once: the functions of all methods then share the arrays of one snapshot.
        self._model = fold_batchnorm(model)
        self.logits_fn = BoundFunction(self._model, _logits, self.num_classes)

        @functools.cache
        def cam_fn(row: Method) -> Callable:
            options = row.accepted(progress=functools.partial(progress, row.name))
            return make_cam_fn(self._model, row.name, **options)

        self.cam_fn = cam_fn

    def name_of(self, class_id: int) -> str:
        """The name of a class."""
        return f"class {class_id}" if self.class_names is None else self.class_names[class_id]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(C,) logits -> (C,) in 0..1."""
        return class_probabilities(logits, self._model.multi_label)

    def image_size(self, method: Method) -> tuple[int, int]:
        """(H, W) of the image that a method takes."""
        return method.image_size(self._model)


class Networks:
    """Maps of pictures by several networks, for several people at once.

    One request computes at a time. What was computed is kept for a while under what it depends on alone: another
    threshold, opacity or colormap runs no network.

    Args:
      loaders: title -> what loads the network, at the first request for it.
      pictures: the pictures.

    Attributes:
      titles: of the networks.
      pictures: the pictures.
      runs: how often a network ran on a picture, or a method on its changed copies.
      working: how far the method is that computes; "" for one that is done at once.
    """

    def __init__(self, loaders: Mapping[str, Callable[[], CamModel]], pictures: Pictures):
        self.titles = tuple(loaders)
        self.runs, self.working = 0, ""
        self._stopped = False
        self._loaders, self.pictures = tuple(loaders.values()), pictures
        self._loaded: dict[int, Offered] = {}
        self._logits: Cache[np.ndarray] = Cache(_KEPT_BYTES)
        self._maps: Cache[Map] = Cache(_KEPT_BYTES)
        self._computing, self._waiting = threading.Lock(), threading.BoundedSemaphore(MAX_WAITING)

    def __getitem__(self, number: int) -> Offered:
        """The network of that number; loads it if need be.

        Raises:
          InputError: no such number, or what `camjax.load_model` raises.
        """
        if not 0 <= number < len(self.titles):
            raise InputError(f"network {number}: expected one of 0..{len(self.titles) - 1}.")
        if number not in self._loaded:
            with self._turn():
                if number not in self._loaded:
                    self._loaded[number] = Offered(self._loaders[number](), self._progress)
        return self._loaded[number]

    def logits(self, picture: str, number: int) -> np.ndarray:
        """(C,) logits of a picture."""
        network, key = self[number], (picture, number)
        if (kept := self._logits.get(key)) is None:
            with self._turn():
                if (kept := self._logits.get(key)) is None:
                    image = resize_image(self.pictures[picture].pixels(), network.input_size)
                    self.runs += 1
                    kept = np.asarray(network.logits_fn(image[None]))[0]
                    self._logits.put(key, kept, kept.nbytes)
        return kept

    def maps(self, picture: str, number: int, method: str, class_ids: Sequence[int]) -> list[Map]:
        """The maps of classes, in the order given.

        Raises:
          InputError: an unknown method, one that the network lacks something for, class ids out of range, or too many.
        """
        network, row = self[number], method_named(method)
        if row not in network.methods:
            row.num_classes(network._model)  # says what is missing
        if not 1 <= len(class_ids) <= MAX_MAPS:
            raise InputError(f"{len(class_ids)} classes: expected 1..{MAX_MAPS}.")
        if wrong := [i for i in class_ids if not 0 <= i < network.num_classes]:
            raise InputError(f"class {wrong[0]}: out of range, the network has classes 0..{network.num_classes - 1}.")

        def kept_maps() -> dict[int, Map]:
            found = {i: self._maps.get((picture, number, method, i)) for i in class_ids}
            return {i: map for i, map in found.items() if map is not None}

        kept = kept_maps()
        if not kept.keys() >= set(class_ids):
            with self._turn():
                kept = kept_maps()  # while this request waited, another one may have computed the same
                if missing := [i for i in dict.fromkeys(class_ids) if i not in kept]:
                    image = resize_image(self.pictures[picture].pixels(), network.image_size(row))
                    computed = self._compute(network, row, image, missing)
                    for i, map in computed.items():
                        self._maps.put((picture, number, method, i), map, map.values.nbytes)
                    kept |= computed
        return [kept[i] for i in class_ids]

    def boxes(
        self, picture: str, number: int, method: str, class_ids: Sequence[int], threshold: float
    ) -> list[np.ndarray | None]:
        """The boxes of classes, `[ymin, xmin, ymax, xmax]` in 0..1; None where a map has no region."""
        check_threshold(threshold)
        size = self[number].image_size(method_named(method))
        boxes = []
        for map in self.maps(picture, number, method, class_ids):
            if map.box is LATER:
                # One at a time, so that another number of classes compiles nothing.
                box, valid = jax.device_get(_boxes_fn(map.values, size, np.float32(threshold)))
                boxes.append(box if valid else None)
            else:
                boxes.append(map.box)
        return boxes

    def figure(
        self,
        picture: str,
        number: int,
        methods: Sequence[str],
        class_ids: Sequence[int],
        threshold: float,
        **looks: Any,
    ) -> Figure:
        """The figure of `camjax explain`, or of `camjax compare` for several methods.

        Args:
          picture: a key of the pictures.
          number: of the network.
          methods: at least one.
          class_ids: at least one.
          threshold: of the boxes.
          **looks: what the two figures of `camjax.viz` have in common: alpha, colormap, scale, draw_boxes.
        """
        network, found = self[number], self.pictures[picture]
        if not methods or len(methods) * len(class_ids) > MAX_MAPS:
            raise InputError(f"{len(methods)} methods of {len(class_ids)} classes: expected 1..{MAX_MAPS} maps.")
        maps = [np.stack([map.values for map in self.maps(picture, number, name, class_ids)]) for name in methods]
        boxes = [
            np.stack(
                [
                    np.zeros(4, np.float32) if box is None else box
                    for box in self.boxes(picture, number, name, class_ids, threshold)
                ]
            )
            for name in methods
        ]
        names = [network.name_of(i) for i in class_ids]
        probabilities = network.probabilities(self.logits(picture, number))[list(class_ids)]
        shown = shrink_image(found.pixels(), SHOWN_SIDE)
        if len(methods) > 1:
            return comparison_figure(shown, maps, boxes, methods, names, probabilities, **looks)
        title = f"{found.name}, {methods[0]}"
        return explanation_figure([shown], maps, boxes, [names], [probabilities], titles=[title], **looks)

    def _compute(self, network: Offered, row: Method, image: np.ndarray, class_ids: Sequence[int]) -> dict[int, Map]:
        """Runs a method for one class after another, since another number of classes would compile another program.

        The methods that run the network on changed images take all classes at once: the runs serve all of them.
        """
        found: dict[int, Map] = {}
        for ids in [list(class_ids)] if row.is_loop else [[i] for i in class_ids]:
            self.runs += 1
            out = network.cam_fn(row)(image[None], np.array([ids]))
            boxes: Any = [LATER] * len(ids)
            if row.host_boxes:
                edges, valid = jax.device_get(row.host_boxes(image[None], out.maps))
                boxes = [box if has else None for box, has in zip(edges[0], valid[0], strict=True)]
            found |= {i: Map(*of) for i, *of in zip(ids, jax.device_get(out.maps[0]), boxes, strict=True)}
        return found

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Waits until no other request computes."""
        if not self._waiting.acquire(blocking=False):
            raise Busy(f"{MAX_WAITING} requests wait for a network already: try again in a minute.")
        try:
            with self._computing:
                self._check_still_asked()
                yield
        finally:
            self.working = ""
            self._waiting.release()

    def stop(self) -> None:
        """Ends what computes, as soon as it can be ended."""
        self._stopped = True

    def _check_still_asked(self) -> None:
        if self._stopped or LEFT.get()():
            raise Left("The one who asked has left, or camjax app ends: nothing is computed.")

    def _progress(self, method: str, done: int, total: int) -> None:
        self._check_still_asked()
        self.working = f"{method}: {done} of {total} changed copies of a picture seen"


_boxes_fn = jax.jit(boxes_from_maps, static_argnums=1)


def _logits(model: CamModel, images: jax.Array, class_ids: None) -> jax.Array:
    return run_for_inference(inference_view(model), images)


def _has_what_it_needs(model: CamModel, row: Method) -> bool:
    try:
        row.num_classes(model)
    except InputError:
        return False
    return True
