"""PyTorch's side of `benchmarks.accelerator`: the same maps, boxes and steps, through `torch.compile`, channels_last.

Every function takes the images as camjax does, (B, H, W, 3) uint8 on the device, and normalizes them in the compiled
program. `float32` is PyTorch's default: convolutions may round to TF32 and matrix products may not, as in camjax.
"""

import copy
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch.nn import functional

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

torch.backends.cudnn.benchmark = True  # PyTorch, too, tries several algorithms

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def to_device(array: np.ndarray) -> torch.Tensor:
    """A copy on the device."""
    return torch.from_numpy(array).to(DEVICE)


def repeated(function: Callable, calls: int = 1) -> Callable[[], None]:
    """A function that makes so many calls one after the other, and waits for the last one."""

    def run():
        for _ in range(calls):
            function()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return run


def compiled(function: Callable, *, mode: str, dry_run: bool) -> Callable:
    """`torch.compile` for one shape; in a dry run without code generation, which takes a minute on a CPU.

    It forgets what was compiled before: closures of one function share a limit of eight programs.
    """
    torch._dynamo.reset()
    if dry_run:
        return torch.compile(function, backend="eager", dynamic=False)
    return torch.compile(function, mode=mode, dynamic=False)


class Cam(torch.nn.Module):
    """Images -> logits (B, C), class ids (B, N) and maps (B, N, h, w), all but the features in float32.

    A module, so that `torch.compile` takes its arrays for constants, as it does a network's weights.

    Args:
      network: of torchvision or timm, with global average pooling and one dense layer at its end.
      model: camjax's, for its mean and deviation.
      dtype: of the convolutions, and of their weights.
      top_k: N.
      size: (H, W) to resize the maps to, bilinear with half-pixel centers; None leaves them as they are.
    """

    def __init__(self, network, model, dtype: str, top_k: int = 1, size: tuple[int, int] | None = None):
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        if hasattr(network, "forward_features"):  # timm
            head = self.network.get_classifier()
        else:
            *layers, _, head = self.network.children()
            self.network = torch.nn.Sequential(*layers)
        self.network.to(DTYPES[dtype], memory_format=torch.channels_last)
        self.normalized = Normalized(model)
        self.register_buffer("weight", head.weight.detach().float())
        self.register_buffer("bias", head.bias.detach().float())
        self.dtype, self.top_k, self.size = DTYPES[dtype], top_k, size
        self.to(DEVICE)

    def forward(self, images):
        """(B, H, W, 3) uint8."""
        x = self.normalized(images).to(self.dtype)
        of_timm = hasattr(self.network, "forward_features")
        features = (self.network.forward_features(x) if of_timm else self.network(x)).float()
        logits = features.mean((2, 3)) @ self.weight.T + self.bias
        class_ids = logits.topk(self.top_k).indices
        maps = torch.einsum("bkhw,bnk->bnhw", features, self.weight[class_ids])
        if self.size is not None:
            maps = functional.interpolate(maps, self.size, mode="bilinear", align_corners=False)
        return logits, class_ids, maps


class Normalized(torch.nn.Module):
    """(B, H, W, 3) uint8 images -> (B, 3, H, W) normalized ones, channels_last."""

    def __init__(self, model):
        super().__init__()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(model, name), dtype=torch.float32))

    def forward(self, images):
        """As the class says."""
        return ((images.float() - self.mean) / self.std).permute(0, 3, 1, 2)


def train_step(network, model, recipe, dtype: str, compile_function: Callable, images, labels) -> Callable:
    """A function that takes one step with SGD and Nesterov's momentum on the mean cross-entropy; weights in float32.

    Args:
      network: as in `Cam`.
      model: as in `Cam`.
      recipe: a `camjax.training.Recipe` with a constant learning rate.
      dtype: of the convolutions, by `torch.autocast`.
      compile_function: compiles the loss and with it its gradient.
      images: (B, H, W, 3) uint8.
      labels: (B,) int64.
    """
    network = copy.deepcopy(network).train().to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(),
        recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=DEVICE == "cuda",
    )
    normalized = Normalized(model).to(DEVICE)

    @compile_function
    def loss_of(images, labels):
        with torch.autocast(DEVICE, DTYPES[dtype], enabled=dtype != "float32"):
            logits = network(normalized(images))
        return functional.cross_entropy(logits.float(), labels)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss_of(images, labels).backward()
        optimizer.step()

    return step


def opencv_boxes(masks: np.ndarray) -> np.ndarray:
    """(n, H, W) bool on the host -> (n, 4) float32: the largest 8-connected component's box; zeros if empty."""
    height, width = masks.shape[1:]
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks.view(np.uint8), strict=True):
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        if count > 1:
            left, top, across, down, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]
            box[:] = top / height, left / width, (top + down) / height, (left + across) / width
    return boxes


def boxes_of(maps: np.ndarray) -> np.ndarray:
    """(n, H, W) maps on the host, of the image's size -> (n, 4), by camjax's rule: above a fifth of the maximum."""
    highest = maps.max((1, 2), keepdims=True)
    return opencv_boxes((maps > 0.2 * highest) & (highest > 0))
