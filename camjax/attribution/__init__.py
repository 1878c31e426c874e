"""Attribution: where a network looked, from its features, the head that follows them, and targets.

`METHODS` is the one table of methods. Each is a function here; by name it is an argument of `camjax.make_cam_fn`,
`camjax.make_localize_fn` and explainers.
"""

from camjax.attribution import targets
from camjax.attribution.adapters.linen import explain_linen
from camjax.attribution.adapters.nnx import explain_nnx
from camjax.attribution.averaged_gradients import integrated_gradients, smooth_grad
from camjax.attribution.decomposition import eigen_cam, eigen_grad_cam
from camjax.attribution.engine import combine_layers
from camjax.attribution.explainers import Explainer, Explanation, explainer
from camjax.attribution.gradient_methods import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from camjax.attribution.gradients import image_gradient, output_gradients, saliency
from camjax.attribution.methods import METHODS
from camjax.attribution.network import CutNetwork, cut_network
from camjax.attribution.perturbation import ablation_cam, is_cam, score_cam, ss_cam
from camjax.attribution.random_masks import rise
from camjax.attribution.sliding_window import occlusion
from camjax.attribution.smoothing import augmentation_smoothing, eigen_smoothing
from camjax.attribution.tokens import reshape_tokens, reshaped

__all__ = [
    "METHODS",
    "CutNetwork",
    "Explainer",
    "Explanation",
    "ablation_cam",
    "augmentation_smoothing",
    "combine_layers",
    "cut_network",
    "eigen_cam",
    "eigen_grad_cam",
    "eigen_smoothing",
    "explain_equinox",
    "explain_linen",
    "explain_nnx",
    "explainer",
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "image_gradient",
    "integrated_gradients",
    "is_cam",
    "layer_cam",
    "occlusion",
    "output_gradients",
    "reshape_tokens",
    "reshaped",
    "rise",
    "saliency",
    "score_cam",
    "smooth_grad",
    "ss_cam",
    "targets",
    "xgrad_cam",
]


def __getattr__(name: str):
    """Imports on first use the adapter of a library that camjax does not depend on."""
    if name == "explain_equinox":
        from camjax.attribution.adapters.equinox import explain_equinox

        return explain_equinox
    raise AttributeError(f"module 'camjax.attribution' has no attribute {name!r}")
