"""The reasons for an answer of the baseline: the part of the image, as a map, and the words of the question."""

import textwrap
from collections.abc import Sequence

import jax
import numpy as np
from matplotlib.figure import Figure

from camjax.features import with_linear_classifier
from camjax.inference import make_cam_fn
from camjax.models import CamModel
from experiments.common.map_figure import map_figure, squashed
from experiments.vqa.baseline import Baseline, Examples, logits
from experiments.vqa.data import Question

_WORDS_SHOWN = 3
_LINE = 58  # characters of a title


def explain_answers(
    model: CamModel,
    weights: Baseline,
    examples: Examples,
    images: Sequence[np.ndarray],
    vocabulary: Sequence[str],
    answers: Sequence[str],
) -> tuple[list[dict], np.ndarray]:
    """The baseline's answers to some questions, and the parts of their logits.

    Args:
      model: gave the pooled features of the examples.
      weights: of the baseline.
      examples: m questions.
      images: m images, one for each question, (H, W, 3) uint8, of any sizes.
      vocabulary: V words.
      answers: A.

    Returns:
      For each question the answer, its probability in 0..1, its logit, image_part, and words: word -> what it adds, by
      falling value. image_part and words sum up to the logit. Then the answers' maps (m, h, w), whose means are the
      image parts: class activation maps with the image's rows of the kernel.
    """
    values = np.asarray(logits(weights, examples))
    chosen = values.argmax(1)
    probabilities = np.asarray(jax.nn.softmax(values))
    image_kernel, word_kernel = np.asarray(weights.image_kernel), np.asarray(weights.word_kernel)
    localizer = with_linear_classifier(model, image_kernel, np.zeros(len(answers)))
    inputs = squashed(images, model.input_size)
    out = make_cam_fn(localizer)(inputs, chosen)
    explained = []
    for row, answer in enumerate(chosen):
        bag = examples.bags[row][examples.bags[row] < len(vocabulary)]
        words = {vocabulary[word]: float(word_kernel[word, answer]) for word in bag}
        explained.append(
            {
                "answer": answers[answer],
                "probability": float(probabilities[row, answer]),
                "logit": float(values[row, answer]),
                "image_part": float(out.logits[row, answer]),
                "words": dict(sorted(words.items(), key=lambda pair: -pair[1])),
            }
        )
    return explained, np.asarray(out.maps)[:, 0]


def answers_figure(
    questions: Sequence[Question],
    explained: Sequence[dict],
    images: Sequence[np.ndarray],
    maps: np.ndarray,
    heading: str,
) -> Figure:
    """The map of each answer next to its image; above it the question, the answer, and what image and words added.

    Args:
      questions: m.
      explained: of each, as `explain_answers` returns it.
      images: of each.
      maps: (m, h, w).
      heading: of the figure.
    """
    titles = []
    for question, found in zip(questions, explained, strict=True):
        words = [f"{word} {weight:+.2f}" for word, weight in list(found["words"].items())[:_WORDS_SHOWN]]
        people = [f"people: {question.answer}"] if question.people else []
        lines = [
            f"{question.text} {found['answer']} ({found['probability']:.0%})",
            *people,
            ", ".join([f"image {found['image_part']:+.2f}", *words]),
        ]
        titles.append("\n".join(textwrap.shorten(line, _LINE, placeholder=" …") for line in lines))
    return map_figure(images, list(maps), titles, heading)
