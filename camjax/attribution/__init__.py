"""Ways to say where a network looked, as functions of features, of the head behind them, and of targets."""

from camjax.attribution import targets
from camjax.attribution.gradient_methods import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from camjax.attribution.gradients import image_gradient, output_gradients, saliency

__all__ = [
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
