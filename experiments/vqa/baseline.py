"""The baseline of Zhou et al. 2015 (iBOWIMG): a question's words and an image's feature, side by side, and a softmax.

The set of the question's words becomes a sum of learned word vectors; the pooled feature of the image is appended to
it; one dense layer without bias gives the logits of the answers. So a logit is a sum over the words plus a part of the
image alone. That part is a dense layer on a global average, so it has a class activation map.
"""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from camjax.errors import InputError
from camjax.features import Progress
from experiments.common.stages import load_arrays

# From the authors' released code, as are the default width of word vectors, rounds and batch size below.
WORD_RATE, ANSWER_RATE = 0.8, 0.01
WORD_NORM, ANSWER_NORM = 1500.0, 20.0
GRADIENT_NORM = 0.1
MOMENTUM = 0.9
DECAY = 5e-6

_ANSWERED_AT_ONCE = 1000


class Baseline(NamedTuple):
    """The weights, for V words, A answers, K features of an image and word vectors of D numbers.

    Attributes:
      word_vectors: (V, D) float32.
      kernel: (D + K, A) float32.
    """

    word_vectors: jax.Array | np.ndarray
    kernel: jax.Array | np.ndarray

    @property
    def image_kernel(self) -> jax.Array | np.ndarray:
        """(K, A): how much a feature of the image adds to the logit of an answer."""
        return self.kernel[self.word_vectors.shape[1] :]

    @property
    def word_kernel(self) -> jax.Array:
        """(V, A): how much a word of the question adds to the logit of an answer."""
        width = self.word_vectors.shape[1]
        return jnp.dot(self.word_vectors, self.kernel[:width], precision=jax.lax.Precision.HIGHEST)

    def save(self, path: Path) -> None:
        """Writes the weights to an .npz file."""
        np.savez(path, word_vectors=self.word_vectors, kernel=self.kernel)

    @classmethod
    def load(cls, path: Path) -> "Baseline":
        """Reads the file of `save`."""
        word_vectors, kernel = load_arrays(path, "word_vectors", "kernel")
        return cls(word_vectors, kernel)


class Examples(NamedTuple):
    """n questions about m images.

    Attributes:
      features: (m, K) float32, of the images.
      rows: (n,) the image of each question.
      bags: (n, L) its words, see `experiments.vqa.data.bags_of_words`.
    """

    features: np.ndarray
    rows: np.ndarray
    bags: np.ndarray


def train_baseline(
    examples: Examples,
    answers: np.ndarray,
    num_words: int,
    num_answers: int,
    *,
    width: int = 800,
    epochs: int = 100,
    batch_size: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Baseline, list[float]]:
    """Trains the baseline on the default device; there, the same seed gives the same weights.

    As in the authors' code: stochastic gradient descent with momentum on the cross-entropy summed over a batch; the
    gradient of each of the two weights is clipped to norm 0.1; word vectors learn 80 times as fast as the dense layer;
    weights decay by 5e-6 times the learning rate, and are scaled back if their norm exceeds 1500 or 20. Their code
    chooses the number of epochs, up to 100, on held-out questions; here it is given.

    Args:
      examples: to train on. The features of all images are on the device: 0.6 GB for 124,000 images of 1,280.
      answers: (n,) their answers, in 0..A-1.
      num_words: V.
      num_answers: A.
      width: D.
      epochs: number of epochs.
      batch_size: examples in a step.
      seed: of the initial weights, and of the order.
      progress: called after each epoch.

    Returns:
      The weights, and the mean cross-entropy of each epoch.

    Raises:
      ValueError: no examples.
    """
    if not len(answers):
        raise InputError("no question to train on: expected some whose answer is one of the frequent ones.")
    weights = _first_weights(num_words, num_answers, width, examples.features.shape[1], seed)
    optimizer = _optimizer()
    state = optimizer.init(weights)
    examples, answers = jax.device_put((examples, np.asarray(answers, np.int32)))
    losses = []
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(answers)).astype(np.int32)
        # The last batch is padded with -1, which does not count.
        order = np.pad(order, (0, -len(order) % batch_size), constant_values=-1).reshape(-1, batch_size)
        weights, state, loss = _epoch(optimizer, weights, state, examples, answers, order)
        losses.append(float(loss) / len(answers))
        if progress:
            progress(epoch + 1, epochs)
    return Baseline(*map(np.asarray, weights)), losses


def logits(weights: Baseline, examples: Examples) -> jax.Array:
    """(n, A) float32."""
    # Places after the vocabulary are not words.
    words = jnp.asarray(weights.word_vectors).at[examples.bags].get(mode="fill", fill_value=0).sum(1)
    images = jnp.asarray(examples.features)[examples.rows]
    return jnp.dot(jnp.concatenate([words, images], axis=1), weights.kernel, precision=jax.lax.Precision.HIGHEST)


def best_answers(weights: Baseline, examples: Examples) -> np.ndarray:
    """(n,) the answer of the largest logit; the first of equal ones."""
    weights, examples = jax.device_put((weights, examples))

    def best(question):
        rows, bags = question
        return logits(weights, Examples(examples.features, rows[None], bags[None]))[0].argmax()

    questions = examples.rows, examples.bags
    return np.asarray(jax.jit(functools.partial(jax.lax.map, best, batch_size=_ANSWERED_AT_ONCE))(questions))


def _first_weights(num_words: int, num_answers: int, width: int, features: int, seed: int) -> Baseline:
    """Uniform, within plus or minus one over the root of the number of inputs, as in Torch."""
    keys = jax.random.split(jax.random.key(seed))
    shapes = (num_words, width), (width + features, num_answers)

    def first(key, shape):
        bound = 1 / math.sqrt(shape[0])
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return Baseline(*map(first, keys, shapes))


@functools.cache
def _optimizer() -> optax.GradientTransformation:
    def of_one(rate: float, largest: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(GRADIENT_NORM), optax.sgd(rate, MOMENTUM), _shrink(rate * DECAY, largest)
        )

    rules = {"words": of_one(WORD_RATE, WORD_NORM), "answers": of_one(ANSWER_RATE, ANSWER_NORM)}
    return optax.partition(rules, lambda weights: jax.tree.unflatten(jax.tree.structure(weights), list(rules)))


def _shrink(decay: float, largest: float) -> optax.GradientTransformation:
    """Shrinks the updated weights by the share `decay`, and to a norm of at most `largest`."""

    def update(updates, state, weights):
        def of_one(update, weight):
            new = (weight + update) * (1 - decay)
            return new * jnp.minimum(1, largest / jnp.linalg.norm(new)) - weight

        return jax.tree.map(of_one, updates, weights), state

    return optax.GradientTransformation(lambda weights: optax.EmptyState(), update)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def _epoch(optimizer, weights: Baseline, state, examples: Examples, answers: jax.Array, order: jax.Array):
    """Steps through the batches of `order` (steps, B); the weights, the optimizer's state, and the summed loss."""

    def loss_of(weights, batch):
        of_batch = Examples(examples.features, examples.rows[batch], examples.bags[batch])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits(weights, of_batch), answers[batch])
        return jnp.where(batch >= 0, losses, 0).sum()

    def step(carry, batch):
        weights, state = carry
        loss, gradients = jax.value_and_grad(loss_of)(weights, batch)
        updates, state = optimizer.update(gradients, state, weights)
        return (optax.apply_updates(weights, updates), state), loss

    (weights, state), losses = jax.lax.scan(step, (weights, state), order)
    return weights, state, losses.sum()
