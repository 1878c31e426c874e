"""pytorch-grad-cam's half of `benchmarks.attribution`: the same networks and weights, maps as its README makes them.

A network in evaluation mode, in PyTorch's default layout and with as many threads as there are cores; a method as a
context manager, called with normalized images and a list of one target for each image. It returns NumPy's arrays:
rectified, scaled to 0..1, resized to the image by OpenCV. Several classes of an image are as many calls.
"""

import contextlib
import functools
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from flax import nnx

from benchmarks import localization
from benchmarks.peers import import_torchvision
from benchmarks.timing import cpu_count

CLASSES = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
    "scorecam": "ScoreCAM",
    "ablationcam": "AblationCAM",
}
"""camjax's name of a method -> pytorch-grad-cam's."""


class Twins(NamedTuple):
    """A network twice.

    Attributes:
      model: camjax's, in inference mode.
      network: PyTorch's, in evaluation mode, with the same weights.
      last: the layer of PyTorch's whose output is camjax's last feature map.
      early: the layer of PyTorch's whose output is that of camjax's layer `early_name`.
      early_name: a layer of camjax's with fewer channels, for methods that run a copy for each.
      early_is_rectified: whether it ends in a ReLU, so that both sides' Ablation-CAM sets its channels to 0.
    """

    model: nnx.Module
    network: Any
    last: Any
    early: Any
    early_name: str
    early_is_rectified: bool


def twins() -> dict[str, Twins]:
    """EfficientNet-Lite0 with its ImageNet weights, and ResNet-50 with torchvision's random ones, always the same."""
    import torch

    torch.set_num_threads(cpu_count())
    torch.manual_seed(0)
    pairs = localization.networks()
    for model, *_ in pairs.values():
        model.eval()
    # Lite0 calls one module for its first activation and for the last, which a hook cannot tell apart: each gets its
    # own, next to its BatchNorm. The function is the same, and there is a layer whose output is the feature map.
    lite0 = pairs["efficientnet_lite0"][1]
    lite0._bn0 = torch.nn.Sequential(lite0._bn0, torch.nn.ReLU6())
    lite0._bn1 = torch.nn.Sequential(lite0._bn1, torch.nn.ReLU6())
    lite0._swish = torch.nn.Identity()
    resnet50 = pairs["resnet50"][1]
    return {
        "efficientnet_lite0": Twins(
            pairs["efficientnet_lite0"][0], lite0, lite0._bn1, lite0._blocks[-1], "blocks.15", False
        ),
        "resnet50": Twins(pairs["resnet50"][0], resnet50, resnet50.layer4[-1], resnet50.layer1[-1], "stages.0.2", True),
    }


def normalized(model: nnx.Module, images: np.ndarray):
    """(B, H, W, 3) uint8 images as the tensor (B, 3, H, W) that PyTorch's network takes."""
    import torch

    mean, std = (np.array(constant, np.float32) for constant in (model.mean, model.std))
    return torch.from_numpy((images - mean) / std).permute(0, 3, 1, 2).contiguous()


def maps_fn(method: str, network, layer, x, batch_size: int | None = None) -> Callable[[Sequence], np.ndarray]:
    """pytorch-grad-cam's method on some images.

    Args:
      method: of `CLASSES`.
      network: PyTorch's.
      layer: of the network.
      x: (B, 3, H, W) normalized images.
      batch_size: copies at a time of methods that perturb; its own default for None.

    Returns:
      targets -> (B, H, W) maps in 0..1: B class ids, or B functions of an image's outputs.
    """
    import_torchvision()
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def maps(targets: Sequence) -> np.ndarray:
        functions = [target if callable(target) else ClassifierOutputTarget(int(target)) for target in targets]
        explainer = getattr(pytorch_grad_cam, CLASSES[method])
        # Its bars of progress would stand between the figures.
        with contextlib.redirect_stderr(io.StringIO()), explainer(model=network, target_layers=[layer]) as explain:
            if batch_size is not None:
                explain.batch_size = batch_size
            return explain(input_tensor=x, targets=functions)

    return maps


def half_pixel_masks():
    """A context in which pytorch-grad-cam's Score-CAM resizes masks as camjax does, so that the maps are the same.

    It aligns the corners of both grids otherwise, which takes as long.
    """
    import torch

    upsample = functools.partial(torch.nn.Upsample, mode="bilinear", align_corners=False)
    return mock.patch.object(torch.nn, "UpsamplingBilinear2d", upsample)
