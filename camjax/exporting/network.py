"""A network from an exported file: it runs without its definition, and without camjax's other parts."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from camjax.checks import as_array, check_class_ids, check_threshold
from camjax.errors import InputError, reading
from camjax.exporting.file import About, read_exported_file
from camjax.outputs import BoundNetwork, CamOutput, Localization
from camjax.programs import Program
from camjax.sharding import Placed

THRESHOLD = "threshold"
"""The array that is no weight."""

ASKED, TOP = "asked", "top"
"""The programs: for classes that are given, and for the most probable ones."""


class ExportedNetwork(BoundNetwork):
    """What `camjax.load_exported` returns: a function of images, at the method and threshold of its export.

    Attributes:
      about: what the file says, see `camjax.exporting.file.About`.
      class_names: names of the C classes; None where they are not known.
      num_classes: C.
      input_size: (H, W) in pixels, to which images have to be resized.
      any_size: whether images of other sizes will do.
      multi_label: whether an image may have several classes.
      method: by which maps are made.
      top_k: the number of classes that have maps, where none are given.
      weights_sha256: of the network that was exported.
      crop_share: as that of `camjax.models.CamModel`, for center crops.
      interpolation: by which center crops are resized.
    """

    def __init__(self, about: About, programs: dict[str, bytes], arrays: dict[str, np.ndarray]):
        self.about = about
        self.class_names = None if about["class_names"] is None else tuple(about["class_names"])
        self.num_classes, self.multi_label = about["num_classes"], about["multi_label"]
        self.input_size, self.any_size = about["input"]["size"], about["input"]["any_size"]
        self.method, self.top_k = about["method"], about["top_k"]
        self.weights_sha256 = about["weights_sha256"]
        self.crop_share, self.interpolation = about["input"]["crop_share"], about["input"]["interpolation"]
        self._functions = {
            name: jax.jit(
                Program(
                    code,
                    **about["programs"][name],
                    platforms=about["platforms"],
                    calling_convention=about["calling_convention"],
                ).function()
            )
            for name, code in programs.items()
        }
        self._arrays = Placed([jnp.asarray(arrays[name]) for name in about["arrays"]])
        self._threshold = about["arrays"].index(THRESHOLD)

    def __call__(self, images: Any, class_ids: Any = None, *, threshold: float | None = None) -> Localization:
        """Maps and boxes, as `camjax.make_localize_fn` gives them.

        Args:
          images: (B, H, W, 3) uint8 RGB, of `input_size`; of any size of at least a map's cell if `any_size`.
          class_ids: (B,) or (B, N) integers in 0..C-1; None for the `top_k` classes of the largest logits.
          threshold: of boxes; None for that of the file.

        Raises:
          ValueError: images or class_ids of another shape or type, class_ids or a threshold out of range, or a device
            of a platform that the file is not for.
        """
        arrays, images, ids = self._arguments(images, class_ids, threshold)
        found = self._functions[TOP](*arrays, images) if ids is None else self._functions[ASKED](*arrays, images, ids)
        return Localization(*found)

    def choosing(
        self, choose: Callable[[jax.Array, Any], jax.Array | None], threshold: float | None = None, boxes: bool = True
    ) -> Callable[..., Any]:
        """See `camjax.outputs.BoundNetwork`."""

        @jax.jit
        def of_chosen(arrays, images, class_ids):
            # The compiler leaves out of the first program what nobody asks for, and the network where both have it.
            ids = choose(self._functions[TOP](*arrays, images)[0], class_ids)
            if ids is None:
                ids = jnp.broadcast_to(jnp.arange(self.num_classes, dtype=jnp.int32), (len(images), self.num_classes))
            found = self._functions[ASKED](*arrays, images, ids)
            return Localization(*found) if boxes else CamOutput(*found[:3])

        return lambda images, class_ids=None: of_chosen(*self._arguments(images, class_ids, threshold))

    def _arguments(self, images: Any, class_ids: Any, threshold: float | None) -> tuple[list[Any], Any, Any]:
        """Of the programs: arrays, images and class ids."""
        images = self._checked(images)
        ids = check_class_ids(class_ids, images.shape[0], self.num_classes)
        arrays = list(self._arrays.beside(images))
        if threshold is not None:
            arrays[self._threshold] = np.float32(check_threshold(threshold))
        return arrays, images, ids

    def _checked(self, images: Any) -> Any:
        images = as_array(images, "images")
        kind = (*getattr(images, "shape", ()), str(getattr(images, "dtype", type(images).__name__)))
        height, width = self.input_size
        least = self.about["input"]["min_size"]
        fits = len(kind) == 5 and kind[0] > 0 and kind[3:] == (3, "uint8")
        if not fits or (min(kind[1:3]) < least if self.any_size else kind[1:3] != (height, width)):
            sizes = f"H and W of at least {least}" if self.any_size else f"H, W = {height}, {width}"
            raise InputError(
                f"images of shape {kind[:-1]} and dtype {kind[-1]}: this exported network takes (B, H, W, 3) uint8 RGB "
                f"with {sizes}. See camjax.load_images(paths, size=network.input_size)"
                + ("." if self.any_size else "; camjax export --any-size writes a network for any size.")
            )
        platform = _platform_of(images)
        if platform not in self.about["platforms"]:
            raise InputError(
                f"the exported network is for {', '.join(self.about['platforms'])}, and the images are on {platform}: "
                "move them with jax.device_put, or export with --platforms."
            )
        return images


def load_exported(path: str | os.PathLike[str]) -> ExportedNetwork:
    """Reads a network that `camjax export` or `camjax.export_model` wrote; it needs no definition of the network.

        localize = camjax.load_exported("birds.camjax")
        found = localize(camjax.load_images(["bird.jpg"], size=localize.input_size))

    Reading runs no code of the file. A call compiles its program for a batch of that size, the first time.

    Args:
      path: of the file, or its address in a bucket.

    Returns:
      `localize(images, class_ids=None) -> camjax.Localization`, as `camjax.make_localize_fn` returns it, for images
      (B, H, W, 3) uint8 RGB of `localize.input_size`, with `class_names` and what else `ExportedNetwork` has.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is damaged or changed, of a newer format, or no exported network.
    """
    about, programs, arrays = read_exported_file(path)
    versions = f"It was written by JAX {about['versions'].get('jax')}, and this is JAX {jax.__version__}."
    with reading(path, "a network that this JAX can run", f"{versions} Install a newer JAX, or export it again."):
        return ExportedNetwork(about, programs, arrays)


def _platform_of(images: Any) -> str:
    """Where a computation on the images runs, in the words of `jax.export`."""
    concrete = isinstance(images, jax.Array) and not isinstance(images, jax.core.Tracer)
    if concrete and images.committed and next(iter(images.devices())).platform == "cpu":
        return "cpu"
    return export.default_export_platform()
