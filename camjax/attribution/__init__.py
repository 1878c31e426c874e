"""Attribution: where a network looked, from its features, the head that follows them, and targets.

`METHODS` is the one table of methods. Each is a function here; by name it is an argument of `camjax.make_cam_fn`,
`camjax.make_localize_fn` and explainers.
"""

from camjax.attribution import targets
from camjax.attribution.adapters.linen import explain_linen
from camjax.attribution.adapters.nnx import explain_nnx
from camjax.attribution.attention import Attention
from camjax.attribution.averaged_gradients import integrated_gradients, smooth_grad
from camjax.attribution.block_gradients import legrad
from camjax.attribution.curvature import shapley_cam
from camjax.attribution.decomposition import eigen_cam, eigen_grad_cam, kpca_cam, seg_eigen_cam
from camjax.attribution.engine import combine_layers
from camjax.attribution.explainers import Explainer, Explanation, explainer
from camjax.attribution.factorization import deep_feature_factorization, dff
from camjax.attribution.feature_explanation import fem
from camjax.attribution.finer import finer_cam
from camjax.attribution.gradient_methods import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from camjax.attribution.gradients import image_gradient, output_gradients, saliency
from camjax.attribution.methods import METHODS
from camjax.attribution.network import CutNetwork, cut_network
from camjax.attribution.perturbation import ablation_cam, faster_score_cam, is_cam, score_cam, ss_cam
from camjax.attribution.random_masks import rise
from camjax.attribution.reciprocal import recipro_cam
from camjax.attribution.refinement import refine_cam
from camjax.attribution.rollout import attention_rollout
from camjax.attribution.sliding_window import occlusion
from camjax.attribution.smooth_gradients import smooth_grad_cam_plus_plus
from camjax.attribution.smoothing import augmentation_smoothing, eigen_smoothing
from camjax.attribution.tokens import reshape_tokens, reshaped
from camjax.attribution.weighted_rollout import gradient_rollout

__all__ = [
    "METHODS",
    "Attention",
    "CutNetwork",
    "Explainer",
    "Explanation",
    "ablation_cam",
    "attention_rollout",
    "augmentation_smoothing",
    "combine_layers",
    "cut_network",
    "deep_feature_factorization",
    "dff",
    "eigen_cam",
    "eigen_grad_cam",
    "eigen_smoothing",
    "explain_equinox",
    "explain_linen",
    "explain_nnx",
    "explainer",
    "faster_score_cam",
    "fem",
    "finer_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient_rollout",
    "hires_cam",
    "image_gradient",
    "integrated_gradients",
    "is_cam",
    "kpca_cam",
    "layer_cam",
    "legrad",
    "occlusion",
    "output_gradients",
    "recipro_cam",
    "refine_cam",
    "reshape_tokens",
    "reshaped",
    "rise",
    "saliency",
    "score_cam",
    "seg_eigen_cam",
    "shapley_cam",
    "smooth_grad",
    "smooth_grad_cam_plus_plus",
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
