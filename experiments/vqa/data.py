"""The VQA data sets as they are distributed: questions and people's answers in JSON files, and the images of MS COCO.

Antol et al. 2015 (VQA v1), Goyal et al. 2017 (v2); https://visualqa.org/download.html describes the formats.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from camjax.data.image_files import check_files
from camjax.data.sources import SourceInfo
from camjax.errors import InputError
from camjax.json_files import read_json
from experiments.common.image_lists import ListedImages
from experiments.common.layouts import check_layout

UNKNOWN = "<unknown>"
"""The first word of a vocabulary, which stands for all words that it lacks."""

_PREFIXES = {"v1": "", "v2": "v2_"}

_Id = Annotated[int, Field(ge=0, lt=2**63)]
# Millions of entries: dictionaries are as fast to make as those of `json`, dataclasses are not.


class _Asked(TypedDict):
    question_id: _Id
    image_id: _Id
    question: str


class _Questions(TypedDict):
    questions: Annotated[list[_Asked], Field(min_length=1)]


class _Answer(TypedDict):
    answer: str


class _Answered(TypedDict):
    question_id: _Id
    image_id: _Id
    answers: list[_Answer]
    multiple_choice_answer: str
    answer_type: str


class _Annotations(TypedDict):
    annotations: Annotated[list[_Answered], Field(min_length=1)]


_Entry = TypeVar("_Entry", _Asked, _Answered)


@dataclass(frozen=True)
class Question:
    """A question about an image.

    Attributes:
      question_id: unique.
      image_id: MS COCO's.
      text: of the question.
      people: the answers of people, ten in these data sets; empty where they are secret, as for the test images.
      answer: the one that most of them gave, called multiple_choice_answer in the data sets; empty where secret.
      answer_type: "yes/no", "number" or "other"; empty where secret.
    """

    question_id: int
    image_id: int
    text: str
    people: tuple[str, ...] = ()
    answer: str = ""
    answer_type: str = ""


class CocoImages(ListedImages):
    """The images of a split of MS COCO that questions are about, in the order of their ids.

    Args:
      folder: has the split's folder.
      split: such as "train2014".
      image_ids: in any order; repeated ones count once.

    Attributes:
      ids: (n,) int, rising.
      info: name and split.

    Raises:
      FileNotFoundError: images are missing; the message names the first and how many.
    """

    def __init__(self, folder: Path, split: str, image_ids: Iterable[int]):
        self.ids = np.unique(np.fromiter(image_ids, np.int64))
        names = [f"{split}/COCO_{split}_{image_id:012d}.jpg" for image_id in self.ids]
        check_files(folder, ((name, f"the questions about {split}") for name in names))
        info = SourceInfo("coco", split, (), len(names), ("image", "label", "filename"))
        super().__init__(folder, names, np.zeros(len(names), int), info)

    def rows(self, questions: Sequence[Question]) -> np.ndarray:
        """(m,) the index of each question's image in this source."""
        return np.searchsorted(self.ids, [question.image_id for question in questions])


def open_vqa(folder: Path, split: str, version: str = "v1") -> tuple[list[Question], CocoImages]:
    """The questions of a split, and their images.

    Args:
      folder: of the data set; the error for another layout shows the expected one.
      split: "train2014" or "val2014"; of "test2015" and "test-dev2015", whose images are the same, the people's answers
        are secret, and their file is not expected.
      version: "v1" or "v2".

    Returns:
      The questions in the order of their file, and the images.

    Raises:
      FileNotFoundError: a file is missing; the message shows the layout.
      ValueError: an unknown version, or as `read_questions`.
    """
    if version not in _PREFIXES:
        raise InputError(f"version {version!r}: expected one of {', '.join(_PREFIXES)}.")
    prefix, images = _PREFIXES[version], split.replace("-dev", "")
    questions = f"{prefix}OpenEnded_mscoco_{split}_questions.json"
    annotations = None if split.startswith("test") else f"{prefix}mscoco_{split}_annotations.json"
    tree = f"{questions}\n" + (f"{annotations}\n" if annotations else "")
    check_layout(
        folder,
        [name for name in (questions, annotations, images) if name],
        tree + f"{images}/\n  COCO_{images}_{9:012d}.jpg\n  ...",
        "Questions and annotations are at https://visualqa.org/download.html, with a page for v1; the images at "
        "https://cocodataset.org/#download. Give the folder as --vqa, and --version for the questions' release.",
    )
    found = read_questions(folder / questions, folder / annotations if annotations else None)
    return found, CocoImages(folder, images, (question.image_id for question in found))


def read_questions(questions: Path, annotations: Path | None = None) -> list[Question]:
    """Reads a file of questions, and the file of the answers to them.

    Args:
      questions: {"questions": [{"question_id", "image_id", "question"}, ...]}; other keys are ignored.
      annotations: {"annotations": [{"question_id", "image_id", "answers": [{"answer"}, ...],
        "multiple_choice_answer", "answer_type"}, ...]}; None for questions whose answers are secret.

    Returns:
      The questions in the order of their file.

    Raises:
      ValueError: a file is damaged or of another form, an id is repeated, or a question and its answers do not match:
        one of them is missing, or they are about different images. The message names the file and the id.
    """
    advice = "Expected a file of the VQA data sets; fetch it again."
    asked = _by_id(questions, read_json(questions, _Questions, advice=advice)["questions"])
    answered: dict[int, _Answered] = {}
    if annotations is not None:
        answered = _by_id(annotations, read_json(annotations, _Annotations, advice=advice)["annotations"])
        for missing, there, where in (
            (answered.keys() - asked.keys(), annotations, questions),
            (asked.keys() - answered.keys(), questions, annotations),
        ):
            if missing:
                raise InputError(
                    f"{there} has the question_id {min(missing)}, and {where} lacks it, with {len(missing) - 1} "
                    "others: expected the questions and annotations of the same split and version."
                )
    found = []
    for question_id, entry in asked.items():
        of_people = answered.get(question_id)
        if of_people is None:
            found.append(Question(question_id, entry["image_id"], entry["question"]))
            continue
        if of_people["image_id"] != entry["image_id"]:
            raise InputError(
                f"question_id {question_id} is about the image {entry['image_id']} in {questions}, and about "
                f"{of_people['image_id']} in {annotations}: expected the files of the same split and version."
            )
        people = tuple(answer["answer"] for answer in of_people["answers"])
        if not people:
            raise InputError(f"{annotations}: question_id {question_id} has no answers: expected ten.")
        answer, kind = of_people["multiple_choice_answer"], of_people["answer_type"]
        found.append(Question(question_id, entry["image_id"], entry["question"], people, answer, kind))
    return found


def _by_id(path: Path, entries: Sequence[_Entry]) -> dict[int, _Entry]:
    """The entries of a file by question_id, in order; ValueError for a repeated one."""
    found = {}
    for entry in entries:
        if entry["question_id"] in found:
            raise InputError(f"{path} has question_id {entry['question_id']} twice: expected each question once.")
        found[entry["question_id"]] = entry
    return found


def words_of(text: str) -> list[str]:
    """The words of a question in lower case, without punctuation but apostrophes."""
    return re.findall(r"[a-z0-9']+", text.lower())


def question_words(questions: Sequence[Question], min_count: int) -> tuple[str, ...]:
    """The vocabulary of questions: `UNKNOWN`, then words that occur at least `min_count` times, the frequent first."""
    counts = Counter(word for question in questions for word in words_of(question.text))
    return UNKNOWN, *(word for word in _by_frequency(counts) if counts[word] >= min_count)


def frequent_answers(questions: Sequence[Question], count: int) -> tuple[str, ...]:
    """The `count` most frequent answers, counted by the answer that most people gave to a question."""
    return tuple(_by_frequency(Counter(question.answer for question in questions))[:count])


def bags_of_words(questions: Sequence[Question], vocabulary: Sequence[str]) -> np.ndarray:
    """The set of words of each question.

    Returns:
      (n, L) int32 places in the vocabulary, rising; after a question's last word, the vocabulary's length. L is the
      number of words in the longest question.
    """
    places = {word: place for place, word in enumerate(vocabulary)}
    bags = [sorted({places.get(word, 0) for word in words_of(question.text)}) for question in questions]
    found = np.full((len(bags), max(map(len, bags), default=0)), len(vocabulary), np.int32)
    for row, bag in zip(found, bags, strict=True):
        row[: len(bag)] = bag
    return found


def _by_frequency(counts: Counter) -> list[str]:
    """By falling frequency; equally frequent ones in alphabetical order, so that the order is always the same."""
    return sorted(counts, key=lambda item: (-counts[item], item))
