"""PyTorch's half of `benchmarks.fine_tuning`: the same network, weights and pictures, as many steps, the same crops.

`usual` is what torchvision's reference training and its tutorial on transfer learning do: all layers learn at one rate,
by SGD with momentum 0.9 and half a cosine; BatchNorm uses the statistics of the batches, and follows them at PyTorch's
default momentum. `by_recipe` has the settings of camjax's recipe. The network is efficientnet-lite-pytorch's, and its
weights are the file that camjax ships.
"""

import contextlib
import functools
import math

import numpy as np

from benchmarks.peers import import_torchvision
from camjax.models.efficientnet_lite import packaged_file
from camjax.training import Recipe


def usual(recipe: Recipe, train: list[dict], validation: list[dict], *, learning_rate: float) -> float:
    """Accuracy in percent after the recipe's steps at a learning rate, of examples as `cut_outs` makes them."""
    import torch

    network = _network(recipe.seed, train).train()
    optimizer = torch.optim.SGD(network.parameters(), learning_rate, momentum=0.9, weight_decay=1e-4)
    return _accuracy(network, optimizer, recipe, train, validation)


def by_recipe(recipe: Recipe, train: list[dict], validation: list[dict]) -> float:
    """Accuracy in percent after the recipe's steps with its settings: BatchNorm as it is, a faster new layer."""
    import torch

    network = _network(recipe.seed, train).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    new = list(network._fc.parameters())
    old = [parameter for name, parameter in network.named_parameters() if not name.startswith("_fc.")]
    groups = [
        {"params": [parameter for parameter in old if parameter.requires_grad], "lr": recipe.learning_rate},
        {"params": new, "lr": recipe.new_layers_factor * recipe.learning_rate},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)
    return _accuracy(network, optimizer, recipe, train, validation, warmup_steps=recipe.warmup_steps)


def _network(seed: int, train: list[dict]):
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    torch.manual_seed(seed)
    with contextlib.redirect_stdout(None):  # it says that it loads weights
        network = EfficientNet.from_pretrained(
            "efficientnet-lite0",
            weights_path=str(packaged_file(0)),
            num_classes=1 + max(example["label"] for example in train),
            batch_norm_momentum=0.9,  # of the old statistics: PyTorch's 0.1 of the new
            drop_connect_rate=0.0,
        )
    return network.to(memory_format=torch.channels_last)  # the faster layout


def _accuracy(network, optimizer, recipe: Recipe, train, validation, warmup_steps: int = 0) -> float:
    transforms = import_torchvision().transforms
    import torch

    images, labels = _tensors(train)
    crop = transforms.RandomResizedCrop(images.shape[-1], scale=(0.35, 1.0), antialias=True)
    augment = transforms.Compose([crop, transforms.RandomHorizontalFlip()])
    factor = functools.partial(_share_of_rate, steps=recipe.steps, warmup_steps=warmup_steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    loss_fn = torch.nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)

    rows = recipe.steps * recipe.batch_size
    order = torch.cat([torch.randperm(len(train)) for _ in range(math.ceil(rows / len(train)))])[:rows]
    for batch in order.split(recipe.batch_size):
        changed = torch.stack([augment(image) for image in images[batch]])
        loss = loss_fn(network(changed.contiguous(memory_format=torch.channels_last)), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    network.eval()
    images, labels = _tensors(validation)
    with torch.no_grad():
        found = torch.cat([network(part).argmax(1) for part in images.split(30)])
    return 100 * (found == labels).float().mean().item()


def _share_of_rate(step: int, steps: int, warmup_steps: int) -> float:
    """Learning rate of a step, as a share of the greatest."""
    if step < warmup_steps:
        return step / warmup_steps
    return (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps))) / 2


def _tensors(examples: list[dict]):
    """Normalized images as the network takes them, (n, 3, h, w) float32, and labels."""
    import torch

    images = torch.from_numpy(np.stack([example["image"] for example in examples]))
    return (images.permute(0, 3, 1, 2).float() - 127) / 128, torch.tensor([example["label"] for example in examples])
