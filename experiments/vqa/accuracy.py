"""The accuracy of answers to visual questions, as the official evaluation code of the VQA data sets computes it.

An answer that three of ten people gave is right: accuracy is min(people who gave it / 3, 1) (Antol et al. 2015,
section 3). The evaluation code averages that over the ten sets of nine people, so that a person, who is compared with
the nine others, is measured in the same way: an answer of three people scores 0.9. Both are here.

Answers are normalized before they are compared. Versions of the evaluation code differ in when they do it. This follows
the one that normalizes the given answer and the people's answers in the same way, and neither if all people wrote the
same. Upper and lower case never matter.
"""

import re
from collections.abc import Mapping, Sequence

from rich.table import Table

from camjax.errors import InputError
from experiments.common.table import result_table

PAPER = 55.89
"""Of the baseline on the test images of VQA v1, open-ended, in percent (Zhou et al. 2015)."""

COMPARED = "VQA v1, val2014", 121_512
"""The split whose accuracy stands beside the paper's, and its number of questions: the test answers are secret."""

ENOUGH = 3
"""An answer is right if this many people gave it."""

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_ARTICLES = {"a", "an", "the"}
_DIGITS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_DIGITS.split())}
# Each is also known with any one of its apostrophes missing.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
_WITH_APOSTROPHES = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTIONS.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # so it is in the official table


def normalize_answer(answer: str) -> str:
    """Normalizes an answer for comparison.

    Lower case; no punctuation except apostrophes, colons and decimal points; number words up to ten as digits ("none"
    is 0); no articles; contractions with their apostrophe. A mark becomes a space, or nothing if it is next to a
    space somewhere in the answer, or if the answer has a comma between digits.
    """
    text = answer
    has_thousands = re.search(r"\d,\d", answer) is not None
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if beside_space or has_thousands else " ")
    # At most 32: the official code passes a flag of that value in place of the count.
    text = re.sub(r"\.(?!\d)", "", text, count=32)
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_WITH_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def agreements(answer: str, people: Sequence[str]) -> list[bool]:
    """Which of the people gave this answer.

    Args:
      answer: in question.
      people: their answers, ten in the VQA data sets.

    Raises:
      ValueError: no people.
    """
    if not people:
        raise InputError(f"answer {answer!r} has no people's answers to be compared with: expected ten of them.")
    answer, *people = (re.sub(r"[\n\t]", " ", text).strip() for text in (answer, *people))
    if len(set(people)) > 1:
        answer, *people = map(normalize_answer, (answer, *people))
    return [person.lower() == answer.lower() for person in people]


def official_accuracy(answer: str, people: Sequence[str]) -> float:
    """The evaluation code's accuracy of an answer: min(matches / 3, 1), averaged over the sets without one person.

    Args:
      answer: in question.
      people: as in `agreements`.

    Returns:
      In 0..1.

    Raises:
      ValueError: no people.
    """
    agree = agreements(answer, people)
    return sum(min((sum(agree) - one) / ENOUGH, 1) for one in agree) / len(agree)


def simple_accuracy(answer: str, people: Sequence[str]) -> float:
    """min(people who gave this answer / 3, 1).

    Args:
      answer: in question.
      people: as in `agreements`.

    Returns:
      In 0..1.

    Raises:
      ValueError: no people.
    """
    return min(sum(agreements(answer, people)) / ENOUGH, 1)


def mean_accuracies(answers: Sequence[str], people: Sequence[Sequence[str]], types: Sequence[str]) -> Mapping:
    """The accuracies of the answers to n questions, in percent.

    Args:
      answers: to the questions.
      people: the people's answers to each.
      types: of the answers, from the annotations, such as "yes/no", "number" and "other".

    Returns:
      "official" and "simple": over all questions; "per_answer_type": type -> official accuracy; "questions": type ->
      number of questions.

    Raises:
      ValueError: the three have different lengths, or are empty.
    """
    if not len(answers) == len(people) == len(types) or not answers:
        raise InputError(
            f"{len(answers)} answers, people's answers to {len(people)} questions and {len(types)} types: expected the "
            "same number of each, at least one."
        )
    official = [official_accuracy(*pair) for pair in zip(answers, people, strict=True)]
    of_type = {kind: [a for a, t in zip(official, types, strict=True) if t == kind] for kind in sorted(set(types))}
    return {
        "official": _percent(official),
        "simple": _percent([simple_accuracy(*pair) for pair in zip(answers, people, strict=True)]),
        "per_answer_type": {kind: _percent(accuracies) for kind, accuracies in of_type.items()},
        "questions": {kind: len(accuracies) for kind, accuracies in of_type.items()},
    }


def accuracy_table(accuracies: Mapping, data: str, network: str) -> Table:
    """Our accuracy, beside the paper's if it is on all validation questions of VQA v1.

    Args:
      accuracies: of `mean_accuracies`.
      data: data set and split of ours.
      network: the name of ours.
    """
    questions = sum(accuracies["questions"].values())
    compared = (data, questions) == COMPARED
    table = result_table(f"Accuracy (%), {data}", *["paper, test"] * compared, f"ours, {network}")
    empty = [""] * compared
    paper, ours = [f"{PAPER:.2f}"] * compared, f"{accuracies['official']:.2f}"
    table.add_row(f"all {questions:,} questions, official", *paper, ours)
    for kind, value in accuracies["per_answer_type"].items():
        table.add_row(f"{kind}, {accuracies['questions'][kind]} questions", *empty, f"{value:.2f}")
    table.add_row("all, min(people / 3, 1)", *empty, f"{accuracies['simple']:.2f}")
    return table


def _percent(accuracies: Sequence[float]) -> float:
    return 100 * sum(accuracies) / len(accuracies)
