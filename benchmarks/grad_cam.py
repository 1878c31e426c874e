"""pytorch-grad-cam's maps of several classes an image, to compare with camjax's."""

import functools

import numpy as np

import camjax


def grad_cam(network, layer, x, class_ids):
    """A function that computes pytorch-grad-cam's maps of (B, N) classes, and its result (B, N, H, W) in 0..1.

    It takes one class for each image of a batch, so it gets each image N times.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(int(c)) for c in np.ravel(class_ids)]
    cam = GradCAM(model=network, target_layers=[layer])
    repeated = x.repeat_interleave(class_ids.shape[1], 0)
    maps = functools.partial(cam, input_tensor=repeated, targets=targets)
    return maps, maps().reshape(*class_ids.shape, *x.shape[2:])


def check_maps(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Raises RuntimeError unless Grad-CAM's maps are CAM's positive part, each scaled to its own range."""
    positive = np.maximum(ours, 0)
    resized = np.asarray(camjax.resize_map(positive, theirs.shape[-2:]))
    spans = [m - m.min((-2, -1), keepdims=True) for m in (resized, theirs)]
    scaled = [m / np.maximum(m.max((-2, -1), keepdims=True), 1e-7) for m in spans]
    error = np.abs(scaled[0] - scaled[1]).mean()
    if not error < 0.05:
        raise RuntimeError(f"the maps differ by {error:.3f} of their range on average; these are not the same maps.")
