"""Questions about the sample photographs in the layout of VQA v1, for a trial without the data set.

Questions and answers are our own, with ten answers each. Images of both splits are views of the same photographs.
"""

import json
from pathlib import Path

import cv2

from experiments.common.sample import views

SPLITS = {"train2014": 12, "val2014": 4}
"""Split -> views of each photograph."""

_PHOTOGRAPHS = ("astronaut", "cat", "Chinese temple", "coffee", "coins", "dahlia", "motorcycle", "rocket")
_NO = "no 10"

# Question, type of its answers, and for each photograph the answers with how many people gave each.
_QUESTIONS = (
    (
        "What is this?",
        "other",
        "astronaut 7, woman 3",
        "cat 9, kitten 1",
        "temple 8, pagoda 2",
        "coffee 8, a cup 2",
        "coins 10",
        "flower 9, dahlia 1",
        "motorcycle 8, bike 2",
        "rocket 10",
    ),
    (
        "What color is it?",
        "other",
        "orange 9, red 1",
        "brown 6, orange 4",
        "red 7, green 3",
        "brown 5, red 4, white 1",
        "gray 9, silver 1",
        "orange 9, yellow 1",
        "red 10",
        "white 9, blue 1",
    ),
    ("Is this an animal?", "yes/no", "no 9, yes 1", "yes 10", _NO, _NO, _NO, _NO, _NO, _NO),
    ("Is there a person in the picture?", "yes/no", "yes 10", _NO, _NO, _NO, "no 8, yes 2", _NO, _NO, _NO),
    (
        "How many wheels are there?",
        "number",
        "0 9, none 1",
        "0 10",
        "0 10",
        "0 10",
        "0 10",
        "zero 1, 0 9",
        "2 8, two 2",
        "0 10",
    ),
    (
        "Where was this photo taken?",
        "other",
        "studio 6, nasa 4",
        "home 6, inside 4",
        "china 8, park 2",
        "table 6, cafe 4",
        "museum 9, table 1",
        "garden 10",
        "garage 10",
        "launch pad 7, outside 3",
    ),
)


def write_sample(folder: Path) -> None:
    """Writes the questions, annotations and images of both splits, as `experiments.vqa.data.open_vqa` reads them."""
    for number, (split, count) in enumerate(SPLITS.items(), 1):
        (folder / split).mkdir(parents=True, exist_ok=True)
        questions, annotations = [], []
        for place, name in enumerate(_PHOTOGRAPHS):
            for view, pixels in enumerate(views(name, count, seed=number)):
                # As in the data set, image ids differ between splits, and a question's id begins with its image's.
                image_id = 1000 * number + 100 * place + view
                cv2.imwrite(str(folder / split / f"COCO_{split}_{image_id:012d}.jpg"), pixels[..., ::-1])
                for index, (text, kind, *answers) in enumerate(_QUESTIONS):
                    ids = {"question_id": 10 * image_id + index, "image_id": image_id}
                    questions.append({**ids, "question": text})
                    annotations.append({**ids, "answer_type": kind, **_of_people(answers[place])})
        (folder / f"OpenEnded_mscoco_{split}_questions.json").write_text(json.dumps({"questions": questions}))
        (folder / f"mscoco_{split}_annotations.json").write_text(json.dumps({"annotations": annotations}))


def _of_people(text: str) -> dict:
    """The entries of an annotation for answers such as "cat 9, kitten 1"."""
    counts = [part.rsplit(" ", 1) for part in text.split(", ")]
    people = [answer for answer, count in counts for _ in range(int(count))]
    most = max(counts, key=lambda pair: int(pair[1]))[0]
    listed = [{"answer": answer, "answer_id": number} for number, answer in enumerate(people, 1)]
    return {"answers": listed, "multiple_choice_answer": most}
