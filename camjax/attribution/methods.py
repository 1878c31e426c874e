"""The one table of methods: what each is called, computes, needs, and how a box is drawn from its maps.

A new method is one function and one row of `METHODS`: `camjax.make_cam_fn`, `camjax.make_localize_fn`, explainers and
the commands `explain`, `compare` and `evaluate` then have it.
"""

import difflib
import enum
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax

from camjax.attribution import (
    block_gradients,
    curvature,
    decomposition,
    factorization,
    feature_explanation,
    full_gradient,
    gradient_methods,
    perturbation,
    reciprocal,
    rollout,
    smooth_gradients,
    targets,
    weighted_rollout,
)
from camjax.attribution.averaged_gradients import integrated_gradients, smooth_grad
from camjax.attribution.center import center_gaussian
from camjax.attribution.gradients import saliency
from camjax.attribution.random_masks import rise
from camjax.attribution.saliency_boxes import saliency_boxes
from camjax.attribution.sliding_window import occlusion
from camjax.attribution.targets import as_target
from camjax.attribution.ten_crop import TEN_CROP, Crops
from camjax.cam import class_maps
from camjax.checks import num_classes
from camjax.errors import InputError
from camjax.models.vit import VisionTransformer, reads_attention
from camjax.outputs import BoundNetwork

REFINED_SIZES = 3
"""Sizes of feature maps whose last layers a method takes that combines layers: those of a ResNet's layer2 to layer4."""


class Needs(enum.Enum):
    """What a method needs of a network, which is also what its function takes."""

    KERNEL = "class activation maps, by the dense kernel after a global pooling"
    """(features (..., h, w, K), kernel (K, C) or None, class_ids (..., N) or None) -> maps; see `camjax.cam`."""
    GRADIENTS = "features, and gradients of scores with respect to them"
    """(features (B, h, w, K) float32, gradients (B, N, h, w, K)) -> maps (B, N, h, w)."""
    CURVATURE = "features, and gradients and Hessians of scores with respect to them"
    """(features (B, h, w, K) float32, gradients (B, N, h, w, K), Hessians times features, alike) -> maps."""
    BIASES = "gradients of scores with respect to the image and to the outputs of all layers that have a bias"
    """(images (B, H, W, 3) float32 less the mean that the network subtracts, gradients (B, N, H, W, 3), biases (K,) of
    the layers, gradients (B, N, h, w, K) with respect to their outputs) -> maps (B, N, H, W)."""
    ATTENTION = "attention weights of a transformer's blocks, and gradients of scores with respect to them"
    """(`camjax.attribution.Attention`, gradients, for each block (B, N, heads, T, T)) -> maps (B, N, h, w)."""
    BLOCK_SCORES = "attention weights of a transformer's blocks, and gradients of the scores of each block's own tokens"
    """(`camjax.attribution.Attention`, gradients, for each block (B, N, heads, T, T)) -> maps (B, N, h, w)."""
    IMAGE_GRADIENT = "gradients of scores with respect to the image"
    """gradients (B, N, H, W, 3) -> maps (B, N, H, W)."""
    CHANGED_IMAGES = "the network on changed images or features"
    """(network, images, features, target, **options) -> maps; a loop on the host, not to be called inside `jax.jit`."""
    WHOLE_NETWORK = "the network on changed images, whatever its features are"
    """(network, images, target, **options) -> maps (B, N, H, W); a loop on the host as well."""
    NOTHING = "nothing but the size of the image"
    """(H, W) -> a map (H, W), the same for all images and classes."""


@dataclass(frozen=True)
class Method:
    """A row of the table. Keyword arguments of its functions are its options.

    Attributes:
      name: on command lines and in `method=`.
      needs: what it needs; see `Needs`.
      function: computes the maps; see `Needs`.
      crops: makes the crops that the network runs on instead of the image, for a method that needs a kernel; or None.
      host_boxes: (images, maps) -> boxes (B, N, 4) and valid (B, N), computed on the host; None for the box rule of the
        paper, `camjax.boxes.boxes_from_maps`.
      all_classes: whether maps of all classes cost little more than those of one.
      target: class ids -> what is explained in their place, a target; None for the scores of the classes. Targets that
        are functions of the outputs stay as they are.
      classes_only: whether it explains classes alone, and no function of the outputs.
      combine: how it combines the maps of several layers, whatever the explainer does. Of a network that is cut at one
        layer, it takes the last layers of `REFINED_SIZES` sizes, if these can be found.
    """

    name: str
    needs: Needs
    function: Callable
    crops: Crops | None = None
    host_boxes: Callable[[Any, Any], tuple[jax.Array, jax.Array]] | None = None
    all_classes: bool = False
    target: Callable[..., targets.Target] | None = None
    classes_only: bool = False
    combine: Literal["product"] | None = None

    @property
    def is_loop(self) -> bool:
        """Whether it is a loop on the host, which runs the network on changed images or features."""
        return self.needs in (Needs.CHANGED_IMAGES, Needs.WHOLE_NETWORK)

    @property
    def of_attention(self) -> bool:
        """Whether it needs a network with attention."""
        return self.needs in (Needs.ATTENTION, Needs.BLOCK_SCORES)

    @property
    def of_a_kind(self) -> bool:
        """Whether it takes some kind of network only, transformers or convolutional ones; see `check_kind`."""
        return self.of_attention or self.combine is not None or self.needs is Needs.BIASES

    @property
    def of_a_layer(self) -> bool:
        """Whether it is defined at any one layer of a network, so that it can be chosen."""
        return self.combine is None and self.needs in (Needs.GRADIENTS, Needs.CURVATURE, Needs.CHANGED_IMAGES)

    def loop(
        self,
        network: Any,
        images: jax.Array,
        features: Any,
        outputs: jax.Array,
        targets: Any,
        multi_label: bool,
        options: Mapping[str, Any],
    ) -> jax.Array:
        """The maps of a method that `is_loop`, from what the network made of a batch.

        Args:
          network: a `CutNetwork`.
          images: of the batch.
          features: of the network for them.
          outputs: of the network for them.
          targets: class ids or a function of the outputs.
          multi_label: whether an image may have several classes.
          options: of the method, by name.
        """
        chosen = {**self.accepted(multi_label=multi_label), **options}
        target = as_target(self.explained(targets, chosen), outputs)
        batch = (images, features) if self.needs is Needs.CHANGED_IMAGES else (images,)
        return self.with_options(chosen)(network, *batch, target)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of its options."""
        return (*_keywords(self.function), *_keywords(self.target))

    def explained(self, targets: Any, options: Mapping[str, Any]) -> Any:
        """What it explains of class ids or a function of the outputs: either of these."""
        if self.target is None or callable(targets):
            return targets
        return self.target(targets, **{name: options[name] for name in _keywords(self.target) if name in options})

    def with_options(self, options: Mapping[str, Any]) -> Callable:
        """Its function, with those of the options that are the function's."""
        given = {name: options[name] for name in _keywords(self.function) if name in options}
        return functools.partial(self.function, **given)

    def accepted(self, **options: Any) -> dict[str, Any]:
        """Those of the options that the method takes."""
        return {name: value for name, value in options.items() if name in self.options}

    def image_size(self, model: Any) -> tuple[int, int]:
        """(H, W) in pixels of its images: the model's input size, or more for crops of that size."""
        crops = None if isinstance(model, BoundNetwork) else self.crops
        return crops.image_size(model.input_size) if crops else model.input_size

    def check_kind(self, model: Any) -> None:
        """Raises ValueError for a vision transformer if the method is for other networks, and the other way round.

        Args:
          model: the module of a network; None where it is not known.
        """
        kind = "this network" if model is None else (getattr(model, "created_as", None) or {}).get("name")
        kind = kind or type(model).__name__
        if self.of_attention and not reads_attention(model):
            raise InputError(
                f"{self.name} reads the attention weights of a vision transformer's blocks, and {kind} is not known to "
                "be one with a class token or averaged tokens: expected a network such as vit_small_patch16_224, see "
                "camjax.list_models(). With weights that you have call its function in camjax.attribution."
            )
        if self.of_a_kind and not self.of_attention and isinstance(model, VisionTransformer):
            raise InputError(
                f"{self.name} of {kind}: expected a convolutional network, which has maps of several sizes. For a "
                "vision transformer take gradcam, layercam, legrad or gradrollout."
            )

    def num_classes(self, model: Any) -> int:
        """C of a model.

        Raises:
          ValueError: the model does not have what the method needs, or is an exported network by another method.
        """
        if isinstance(model, BoundNetwork):
            if model.method != self.name:
                raise InputError(
                    f"{self.name} of an exported network, whose maps are by {model.method}: take the network that it "
                    f"was exported from, or export that one by {self.name}."
                )
            return model.num_classes
        self.check_kind(model)
        head: Any = getattr(model, "head", None)
        if self.needs is not Needs.KERNEL and hasattr(head, "num_classes"):
            return head.num_classes
        return num_classes(model)


def _keywords(function: Callable | None) -> tuple[str, ...]:
    parameters = () if function is None else inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


_MEAN = functools.partial(targets.finer, weights="mean", strength=0.6)
"""Finer-CAM as torch-cam has it."""

_ROWS = (
    Method("cam", Needs.KERNEL, class_maps, all_classes=True),
    Method("cam_ten_crop", Needs.KERNEL, class_maps, crops=TEN_CROP),
    Method("gradcam", Needs.GRADIENTS, gradient_methods.grad_cam_maps),
    Method("gradcam++", Needs.GRADIENTS, gradient_methods.grad_cam_plus_plus_maps),
    Method("xgradcam", Needs.GRADIENTS, gradient_methods.xgrad_cam_maps),
    Method("hirescam", Needs.GRADIENTS, gradient_methods.hires_cam_maps),
    Method("layercam", Needs.GRADIENTS, gradient_methods.layer_cam_maps),
    Method("eigencam", Needs.GRADIENTS, decomposition.eigen_cam_maps),
    Method("eigengradcam", Needs.GRADIENTS, decomposition.eigen_grad_cam_maps),
    Method("finercam", Needs.GRADIENTS, gradient_methods.grad_cam_maps, target=targets.finer, classes_only=True),
    Method("finercam_mean", Needs.GRADIENTS, gradient_methods.grad_cam_maps, target=_MEAN, classes_only=True),
    Method("refinecam", Needs.GRADIENTS, gradient_methods.grad_cam_plus_plus_maps, combine="product"),
    Method("segeigencam", Needs.GRADIENTS, decomposition.seg_eigen_cam_maps),
    Method("kpcacam", Needs.GRADIENTS, decomposition.kpca_cam_maps),
    Method("fem", Needs.GRADIENTS, feature_explanation.fem_maps),
    Method("dff", Needs.GRADIENTS, factorization.dff_maps),
    Method("shapleycam", Needs.CURVATURE, curvature.shapley_cam_maps),
    Method("fullgrad", Needs.BIASES, full_gradient.full_grad_maps),
    Method("rollout", Needs.ATTENTION, rollout.attention_rollout_maps),
    Method("gradrollout", Needs.ATTENTION, weighted_rollout.gradient_rollout),
    Method("legrad", Needs.BLOCK_SCORES, block_gradients.legrad),
    Method("backprop", Needs.IMAGE_GRADIENT, saliency, host_boxes=saliency_boxes),
    Method("center", Needs.NOTHING, center_gaussian),
    Method("scorecam", Needs.CHANGED_IMAGES, perturbation.score_cam_maps),
    Method("sscam", Needs.CHANGED_IMAGES, perturbation.ss_cam_maps),
    Method("iscam", Needs.CHANGED_IMAGES, perturbation.is_cam_maps),
    Method("ablationcam", Needs.CHANGED_IMAGES, perturbation.ablation_cam_maps),
    Method("fasterscorecam", Needs.CHANGED_IMAGES, perturbation.faster_score_cam_maps),
    Method("smoothgradcam++", Needs.CHANGED_IMAGES, smooth_gradients.smooth_grad_cam_plus_plus_maps),
    Method("reciprocam", Needs.CHANGED_IMAGES, reciprocal.recipro_cam_maps, target=targets.probabilities),
    Method("integrated_gradients", Needs.WHOLE_NETWORK, integrated_gradients),
    Method("smoothgrad", Needs.WHOLE_NETWORK, smooth_grad, host_boxes=saliency_boxes),
    Method("occlusion", Needs.WHOLE_NETWORK, occlusion),
    Method("rise", Needs.WHOLE_NETWORK, rise, target=targets.probabilities),
)

METHODS: Mapping[str, Method] = {row.name: row for row in _ROWS}
"""Name -> method; docs/attribution.md describes them."""


def method_named(name: str, options: Iterable[str] = ()) -> Method:
    """Looks up a method.

    Args:
      name: of `METHODS`.
      options: names of options that the method has to take.

    Raises:
      ValueError: unknown name, or an option that the method does not take.
    """
    if not isinstance(name, str):
        raise InputError(
            f"method={name!r}: expected the name of a method, such as 'cam'. The number of classes and the threshold "
            "are given by name: top_k=5, threshold=0.2."
        )
    if name not in METHODS:
        near = difflib.get_close_matches(name.lower(), METHODS, n=1)  # as other libraries write it: GradCAM
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"method {name!r}: expected one of {', '.join(METHODS)}.{hint}")
    method = METHODS[name]
    if unknown := [option for option in options if option not in method.options]:
        known = ", ".join(method.options) if method.options else "none"
        raise InputError(f"{name} has no option {', '.join(unknown)}: it has {known}.")
    return method


def common_image_size(model: Any, methods: Iterable[str]) -> tuple[int, int]:
    """(H, W) in pixels of the images that several methods are made for.

    Raises:
      ValueError: no method, an unknown one, or one given twice; methods whose sizes differ.
    """
    names = list(methods)
    if not names or len({*names}) < len(names):
        raise InputError(f"methods {names}: expected at least one, each once.")
    sizes = {method_named(name).image_size(model): name for name in names}
    if len(sizes) > 1:
        listed = ", ".join(f"{name} takes {h} x {w}" for (h, w), name in sizes.items())
        raise InputError(f"methods with images of different sizes: {listed}. Use them one after the other.")
    return next(iter(sizes))
