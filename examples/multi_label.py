"""Several classes in one picture: a head of sigmoids, trained from lists of classes, and a box of each class in it.

python examples/multi_label.py
"""

import jax
import numpy as np
import optax
from flax import nnx

import camjax
from camjax.cam import class_probabilities
from camjax.training import SigmoidBinaryCrossEntropy

SIDE, NAMES = 48, ("upright", "lying", "square")
SHAPES = ((16, 4), (4, 16), (9, 9))  # height and width in pixels


def pictures(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise with any of three shapes: (B, SIDE, SIDE, 3) uint8, (B, 3) labels of 0 and 1, (B, 3, 4) boxes in 0..1."""
    images = rng.integers(0, 96, (count, SIDE, SIDE, 3), np.uint8)
    labels = rng.integers(0, 2, (count, len(NAMES))).astype(np.float32)
    boxes = np.zeros((count, len(NAMES), 4), np.float32)
    for image, label, its_boxes in zip(images, labels, boxes, strict=True):
        for place, c in enumerate(rng.permutation(len(NAMES))):  # side by side, so that none hides another
            height, width = SHAPES[c]
            y, x = rng.integers(0, SIDE - height), 16 * place + rng.integers(0, 17 - width)
            if label[c]:
                image[y : y + height, x : x + width] = 255
                its_boxes[c] = np.array([y, x, y + height, x + width]) / SIDE
    return images, labels, boxes


@jax.jit
def step(model, optimizer, images, labels):
    """One step of training: the model and optimizer after it, and the loss."""
    loss = SigmoidBinaryCrossEntropy()
    value, gradients = nnx.value_and_grad(lambda model: loss(model(images), labels).mean())(model)
    optimizer.update(model, gradients)
    return model, optimizer, value


def main(steps: int = 150) -> dict[str, float]:
    """Trains, prints what is in a picture, and returns how often classes and boxes are right on new pictures."""
    rng = np.random.default_rng(0)
    model = camjax.create_model("small_gap", num_classes=len(NAMES), rngs=nnx.Rngs(0))
    model.class_names, model.multi_label = NAMES, True
    model.train()
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    for _ in range(steps):
        model, optimizer, _ = step(model, optimizer, *pictures(rng, 32)[:2])
    model.eval()

    images, labels, boxes = pictures(rng, 64)
    every_class = np.tile(np.arange(len(NAMES)), (len(images), 1))
    found = camjax.make_localize_fn(model, threshold=0.7)(images, every_class)  # boxes (B, 3, 4)
    probabilities = np.asarray(class_probabilities(found.logits, multi_label=True))  # (B, 3) in 0..1
    present = probabilities > 0.5
    for name, share, box in zip(NAMES, probabilities[0], np.asarray(found.boxes[0]), strict=True):
        print(f"{name}: {share:.0%}" + (f", at {box.round(2).tolist()}" if share > 0.5 else ""))
    middle = np.asarray(found.boxes).reshape(*labels.shape, 2, 2).mean(2)  # (B, 3, 2) y and x in 0..1
    inside = ((boxes[..., :2] <= middle) & (middle <= boxes[..., 2:])).all(-1)
    return {"classes": (present == labels).mean(), "middle_inside": inside[labels == 1].mean()}


if __name__ == "__main__":
    print(main())
