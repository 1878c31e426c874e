"""A series of 16-bit slices, as scanners make them: window the values, find slices with a lesion, and where, in mm.

    python examples/medical_series.py

The scans are made here, and say nothing about real ones. `camjax.load_images` would bring the whole range of 16 bits to
8, with few levels of gray left for soft tissue. A window, as float32 in 0..255, keeps all of them.
A map is as wide as what a cell of it sees, here 31 pixels: it says where a lesion is, not how large.
"""

import tempfile

import cv2
import jax
import numpy as np
import optax
from flax import nnx

import camjax
from camjax.training import SoftmaxCrossEntropy

SIDE, SPACING = 64, (5.0, 1.5, 1.5)  # pixels of a slice; mm between slices, rows and columns
CENTER, WIDTH = 1064, 400  # a window for soft tissue, of Hounsfield units that are stored with 1024 added


def scan(rng: np.random.Generator, slices: int) -> tuple[np.ndarray, np.ndarray]:
    """A body with a lesion in about half of its slices: (Z, SIDE, SIDE) uint16, and where it is, bool."""
    z, y, x = np.mgrid[:slices, :SIDE, :SIDE]
    body = ((y - 32) / 26) ** 2 + ((x - 32) / 30) ** 2 < 1
    values = np.where(body, 1064, 24) + rng.normal(0, 12, body.shape)
    values += 900 * (body & (((y - 50) / 4) ** 2 + ((x - 32) / 5) ** 2 < 1))  # bone, far above the window
    middle, (cy, cx) = rng.integers(slices), rng.integers((18, 14), (40, 50))
    lesion = ((z - middle) / (slices / 3)) ** 2 + ((y - cy) / 6) ** 2 + ((x - cx) / 6) ** 2 < 1
    return (values + 90 * lesion).clip(0, 65535).astype(np.uint16), lesion


def windowed(values: np.ndarray) -> np.ndarray:
    """(Z, H, W) stored values -> (Z, H, W, 3) float32 in 0..255, gray in all channels."""
    shares = (values.astype(np.float32) - (CENTER - WIDTH / 2)) / WIDTH
    return np.repeat(255 * shares.clip(0, 1)[..., None], 3, axis=-1)


@jax.jit
def step(model, optimizer, images, labels):
    """One step of training: the model and optimizer after it."""
    gradients = nnx.grad(lambda model: SoftmaxCrossEntropy()(model(images), labels).mean())(model)
    optimizer.update(model, gradients)
    return model, optimizer


def main(steps: int = 120) -> dict[str, list[float]]:
    """Trains from which slices have a lesion, and returns the found and the true center in a new series, in mm."""
    rng = np.random.default_rng(0)
    model = camjax.create_model("small_gap", num_classes=2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(2e-3), wrt=nnx.Param)
    for _ in range(steps):
        values, lesion = map(np.concatenate, zip(*(scan(rng, 8) for _ in range(3)), strict=True))
        model, optimizer = step(model, optimizer, windowed(values), lesion.any((1, 2)).astype(np.int32))
    model.eval()
    values, lesion = scan(rng, 16)  # a new one
    with tempfile.NamedTemporaryFile(suffix=".tiff") as file:  # all slices in one file, 16 bits each
        cv2.imwritemulti(file.name, list(values))
        series = np.stack(cv2.imreadmulti(file.name, flags=cv2.IMREAD_UNCHANGED)[1])
    found = camjax.make_localize_fn(model, threshold=0.8)(windowed(series), np.ones(len(series), int))
    seen = np.flatnonzero(np.asarray(found.logits).argmax(1) == 1)
    if not len(seen):
        return {"found": [], "true": []}
    top, left, bottom, right = SIDE * np.asarray(found.boxes)[seen, 0].mean(0)
    center = np.array([seen.mean() + 0.5, (top + bottom) / 2, (left + right) / 2])
    return {"found": (center * SPACING).tolist(), "true": ((np.argwhere(lesion).mean(0) + 0.5) * SPACING).tolist()}


if __name__ == "__main__":
    print(main())
