"""Tables of names: where in a model each tensor of a published file goes.

A table is a tuple of rules, and the first rule that matches a name counts. A network's file holds its table, made of
the few layers that all tables are made of.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# PyTorch and Caffe store convolutions as (K_out, K_in, kh, kw) and dense layers as (C, K).
CONV = (2, 3, 1, 0)
DENSE = (1, 0)


@dataclass(frozen=True)
class Rule:
    """One line of a name table.

    Attributes:
      pattern: regular expression that the whole name in the file matches.
      place: path in the model, with the pattern's groups as in `re.Match.expand`; None to leave the entry out.
      axes: permutation from the file's axes to the model's, or None.
      squeeze: whether to drop axes of length 1, which the file has and the model has not.
      fit: (the file's array, the model's shape) -> array, for one of another shape; or None.
      zeros: place that becomes zeros where the pattern matches and no entry fills it; or None.
    """

    pattern: str
    place: str | None
    axes: tuple[int, ...] | None = None
    squeeze: bool = False
    fit: Callable[[np.ndarray, tuple[int, ...]], np.ndarray] | None = None
    zeros: str | None = None


Table = tuple[Rule, ...]


def layer(pattern: str, place: str, axes: tuple[int, ...]) -> Table:
    """The rules of a convolution or dense layer with bias, named as PyTorch does."""
    return Rule(rf"{pattern}\.weight", f"{place}.kernel", axes), Rule(rf"{pattern}\.bias", f"{place}.bias")


def layernorm(pattern: str, place: str) -> Table:
    """The rules of a LayerNorm, named as PyTorch does."""
    return Rule(rf"{pattern}\.weight", f"{place}.scale"), Rule(rf"{pattern}\.bias", f"{place}.bias")


def batchnorm(pattern: str, place: str) -> Table:
    """The rules of a BatchNorm, named as PyTorch does."""
    return (
        *layernorm(pattern, place),
        Rule(rf"{pattern}\.running_mean", f"{place}.mean"),
        Rule(rf"{pattern}\.running_var", f"{place}.var"),
        Rule(rf"{pattern}\.num_batches_tracked", None),
    )


def convbn(conv: str, bn: str, place: str) -> Table:
    """The rules of a `ConvBN`: a convolution without bias and its BatchNorm, named as PyTorch does.

    Args:
      conv: pattern of the convolution's name.
      bn: pattern of the BatchNorm's name.
      place: of the `ConvBN` in the model.
    """
    return Rule(rf"{conv}\.weight", f"{place}.conv.kernel", CONV), *batchnorm(bn, f"{place}.bn")
