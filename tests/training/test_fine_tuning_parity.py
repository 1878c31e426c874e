"""Fine-tuning by `camjax train`'s recipe, beside a usual PyTorch loop: the same pictures, weights and number of steps.

The pictures are cut-outs of real photographs on real textures, eight classes; those to train on have other textures
than those to test, so neither gets all right. The PyTorch side is what torchvision's and timm's guides to fine-tuning
do: all layers by SGD with Nesterov momentum and half a cosine, BatchNorm in training mode, random resized crops and
flips.
"""

import math

import numpy as np
import pytest
from flax import nnx

import camjax
from camjax.data.images import resize_image
from camjax.models.efficientnet_lite import packaged_file
from camjax.training import evaluate, fit
from camjax.training.fine_tuning import fine_tuning, fine_tuning_augmentation
from tests.data import cutouts

pytestmark = [pytest.mark.parity, pytest.mark.long]
BATCH_SIZE = 16
NOISE = 0.04
"""How much less than PyTorch's the mean accuracy may be: about twice its standard error over three seeds."""


class Pictures(list):
    """(image, label) of cut-outs, with training pictures augmented by camjax or not at all."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return {"image": image, "label": label}


def pictures(seed: int, count: int, side: int) -> tuple[Pictures, Pictures]:
    """`count` pictures to train on and as many to test."""
    made = cutouts.composites(count, count, seed)
    return tuple(
        Pictures((resize_image(bird.pixels, (side, side)), bird.label) for bird in made if bird.train is train)
        for train in (True, False)
    )


def by_camjax(seed: int, train: Pictures, test: Pictures, side: int, epochs: int) -> float:
    with pytest.warns(UserWarning, match="head is new"):
        model = camjax.load_model("efficientnet_lite0", num_classes=len(cutouts.CLASSES), rngs=nnx.Rngs(seed))
    model.input_size = (side, side)
    recipe = fine_tuning(len(train), batch_size=BATCH_SIZE, epochs=epochs)
    augment = fine_tuning_augmentation((side, side))
    model = fit(model, train, recipe, augment=augment, progress=False)
    return evaluate(model, test, batch_size=BATCH_SIZE)["accuracy"]


def by_torch(seed: int, train: Pictures, test: Pictures, side: int, epochs: int) -> float:
    import torch

    package = pytest.importorskip("efficientnet_lite_pytorch")
    from benchmarks.peers import import_torchvision

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = package.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(packaged_file(0)), num_classes=len(cutouts.CLASSES)
    )
    transforms = import_torchvision().transforms
    augment = transforms.Compose(
        [transforms.RandomResizedCrop(side, antialias=True), transforms.RandomHorizontalFlip()]
    )

    def tensor(images):
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def normalized(images):
        return (images.float() - 127) / 128

    steps = math.ceil(epochs * len(train) / BATCH_SIZE)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss_fn = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    order: list[int] = []
    network.train()
    for _ in range(steps):
        if len(order) < BATCH_SIZE:
            order += rng.permutation(len(train)).tolist()
        rows, order = [train[i] for i in order[:BATCH_SIZE]], order[BATCH_SIZE:]
        images = torch.stack([augment(image) for image in tensor([row["image"] for row in rows])])
        loss = loss_fn(network(normalized(images)), torch.tensor([row["label"] for row in rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        found = network(normalized(tensor([image for image, _ in test]))).argmax(1).numpy()
    return float(np.mean(found == [label for _, label in test]))


@pytest.mark.parametrize(
    ("seeds", "count", "side", "epochs"),
    [(1, 72, 96, 4), (3, 270, 128, 10)],
)
def test_the_recipe_reaches_what_pytorch_reaches(seeds, count, side, epochs):
    accuracies = []
    for seed in range(seeds):
        train, test = pictures(seed, count, side)
        accuracies.append([run(seed, train, test, side, epochs) for run in (by_camjax, by_torch)])
        print(f"seed {seed}: camjax {accuracies[-1][0]:.3f}, PyTorch {accuracies[-1][1]:.3f}")
    ours, theirs = np.mean(accuracies, axis=0)
    assert ours > theirs - NOISE * math.sqrt(3 / seeds), accuracies
    assert ours > 3 / len(cutouts.CLASSES), accuracies  # three times what guessing has
