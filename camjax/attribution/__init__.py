"""Ways to say where a network looked, as functions of features, of the head behind them, and of targets."""

from camjax.attribution import targets
from camjax.attribution.explainer import Explainer, Explanation, explainer
from camjax.attribution.gradient_methods import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from camjax.attribution.gradients import image_gradient, output_gradients, saliency
from camjax.attribution.layers import combine_layers
from camjax.attribution.methods import METHODS
from camjax.attribution.network import CutNetwork, cut_network

__all__ = [
    "METHODS",
    "CutNetwork",
    "Explainer",
    "Explanation",
    "combine_layers",
    "cut_network",
    "explainer",
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "image_gradient",
    "layer_cam",
    "output_gradients",
    "saliency",
    "targets",
    "xgrad_cam",
]
