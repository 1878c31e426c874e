r"""Visual question answering, and the region that an answer rests on (Zhou et al. 2016, section 4).

    python -m experiments.vqa --sample                                  # a trial without the data set
    python -m experiments.vqa --vqa DIR                                 # EfficientNet-Lite0, works offline
    python -m experiments.vqa --vqa DIR --train train2014 val2014 --test test2015 \
        --model googlenet_gap --weights cam-release --out runs/vqa_googlenet   # the paper's

The baseline of Zhou et al. 2015 (arXiv:1512.02167): the pooled feature of the image and a bag of the question's words,
side by side, and a softmax over the frequent answers. The logit of an answer is exactly what the words add to it plus
what the image adds. The image's part is a dense layer on a global average: its weights, in place of the network's own,
give a map with that mean. The figure shows the map of each answer, with the part of the image and the strongest words.

**Data.** VQA v1 (Antol et al. 2015): three questions on each of 82,783 training, 40,504 validation and 81,434 test
images of MS COCO, 248,349 and 121,512 and 244,302, each answered by ten people; `--version v2` takes the balanced
questions of Goyal et al. 2017, 443,757 and 214,354 and 447,793. Questions and answers are at
https://visualqa.org/download.html, images at https://cocodataset.org/#download: 13 and 6 GB for training and
validation, and as much again for the test images (from memory). The error for a folder that lacks them shows the
layout.

**Training** follows the authors' released code where it is clear: words that occur six times, the others as one unknown
word; word vectors of 800 numbers; batches of 100, and at most 100 epochs; the rates, momentum and limits in
`experiments.vqa.baseline`. Ours: words are letters, digits and apostrophes in lower case; the 1,000 most frequent
answers, while that code takes all that occur three times; questions with other answers are left out of training; the
number of epochs is fixed, while that code takes the best one for held-out questions.

**Accuracy** is the official one, min(people who gave the answer / 3, 1) averaged over the ten sets of nine people, with
answers normalized as there (`experiments.vqa.accuracy`); the accuracy over all ten people is given
too. Types of answers are those of the annotations. For the test images, whose answers are secret, answers.json has the
format of the evaluation server.

The paper's number, of GoogLeNet on the test images of VQA v1, open-ended: 55.89 %, quoted from memory.
It is printed beside ours on all questions of v1's val2014.

Our numbers: none yet, VQA was not available where this was written.

Cost: the features of the training and validation images take 30 minutes (estimated: 70 images/s for Lite0 on two CPU
cores) and 0.6 GB of memory. A step of training took 0.15 s on two busy cores (measured, on made-up questions): 6
minutes for the 2,484 of an epoch, 10 hours for 100 epochs; on a GPU not measured. The sample took 85 s there.

The same command continues where it stopped: features are kept in shards, and the stages in results.json.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from camjax.cli.options import Count, Folder, OptionalFolder, arg, at_least_one
from camjax.errors import InputError
from camjax.processes import in_first, is_first
from camjax.terminal import Console, progress
from experiments.common.command import start
from experiments.common.options import NetworkOptions
from experiments.common.sample import NAME as SAMPLE
from experiments.common.sample import announce
from experiments.common.stages import Stages
from experiments.vqa.accuracy import accuracy_table, mean_accuracies
from experiments.vqa.baseline import Baseline, Examples, best_answers, train_baseline
from experiments.vqa.data import frequent_answers, open_vqa, question_words
from experiments.vqa.examples import Splits, examples_of
from experiments.vqa.maps import answers_figure, explain_answers
from experiments.vqa.sample import write_sample


@dataclass(frozen=True, kw_only=True)
class Options(NetworkOptions):
    """Answers to questions about images, from a bag of words and a pooled feature, and the part of the image they use.

    Attributes:
      sample: A trial on a few photographs, with our own questions; its results mean nothing.
      vqa: The folder of questions, annotations and images.
      version: The release of the questions, v1 or v2.
      train: The splits to train on.
      test: The split to answer: val2014, test2015 or test-dev2015.
      out: Where features, weights, answers, results and the figure go. The same command continues where it stopped.
      answers: The most frequent N answers are those to choose from.
      min_count: Words that occur less often in the training questions are unknown.
      width: Numbers in a word vector.
      epochs: Number of epochs.
      batch_size: Questions in a step.
      seed: Seed of the initial weights, and of the order of the questions.
      shown: Questions in the figure.
    """

    sample: bool = False
    vqa: OptionalFolder = None
    version: Literal["v1", "v2"] = "v1"
    train: Annotated[tuple[str, ...], arg("SPLIT...")] = ("train2014",)
    test: Annotated[str, arg("SPLIT")] = "val2014"
    out: Folder = Path("runs/vqa")
    answers: Count = 1000
    min_count: Count = 6
    width: Count = 800
    epochs: Count = 100
    batch_size: Count = 100
    seed: Count = 0
    shown: Count = 12

    def __post_init__(self):
        at_least_one(self, "answers", "min_count", "width", "epochs", "batch_size", "shown")
        if self.sample == (self.vqa is not None):
            raise InputError("expected --vqa with the VQA data set, or --sample for a trial without: one of them.")
        if not self.train or len(set(self.train)) < len(self.train) or self.test in self.train:
            raise InputError(
                f"--train {' '.join(self.train)} --test {self.test}: expected one split or more to train on, and "
                "another one to answer."
            )
        if any(split.startswith("test") for split in self.train):
            raise InputError(f"--train {' '.join(self.train)}: the answers to the test questions are secret.")
        if self.sample and (self.version, self.train, self.test) != ("v1", ("train2014",), "val2014"):
            raise InputError("--sample with --version, --train or --test: the sample has its own; leave them out.")


def run(options: Options, splits: Splits, console: Console) -> dict:
    """Runs the experiment on the questions and images of all splits; see the module.

    Returns:
      Stage -> results, as in results.json.
    """
    stages, model = Stages(options.out), options.load_model()
    asked = [question for split in options.train for question in splits[split][0]]
    vocabulary, answers = question_words(asked, options.min_count), frequent_answers(asked, options.answers)
    train_questions, train = examples_of(options.out, model, splits, options.train, vocabulary, console)
    test_questions, test = examples_of(options.out, model, splits, (options.test,), vocabulary, console)
    weights_file, answers_file, figure_file = (options.out / name for name in ("vqa.npz", "answers.json", "vqa.png"))
    learning = {name: getattr(options, name) for name in ("width", "epochs", "batch_size", "seed")}
    subject = {
        "data": SAMPLE if options.sample else f"VQA {options.version}",
        "splits": [*options.train, options.test],
        **options.network(model),
        "answers": options.answers,
        "min_count": options.min_count,
        **learning,
    }

    def training() -> dict:
        places = {answer: place for place, answer in enumerate(answers)}
        labels = np.array([places.get(question.answer, -1) for question in train_questions])
        known = np.flatnonzero(labels >= 0)
        chosen = Examples(train.features, train.rows[known], train.bags[known])
        with progress("training: rounds", console) as update:
            weights, losses = train_baseline(
                chosen, labels[known], len(vocabulary), len(answers), **learning, progress=update
            )
        weights.save(weights_file)
        numbers = {"questions": len(asked), "trained_on": len(known), "words": len(vocabulary), "answers": len(answers)}
        return {**numbers, "loss": losses}

    def answering() -> dict:
        given = [answers[place] for place in best_answers(Baseline.load(weights_file), test)]
        listed = [{"question_id": q.question_id, "answer": a} for q, a in zip(test_questions, given, strict=True)]
        answers_file.write_text(json.dumps(listed) + "\n")
        numbers = {"questions": len(splits[options.test][0]), "answered": len(given)}
        if not test_questions[0].people:
            return numbers
        people, types = zip(*((question.people, question.answer_type) for question in test_questions), strict=True)
        return {**numbers, "accuracy": mean_accuracies(given, people, types)}

    def showing() -> dict:
        chosen = np.unique(np.linspace(0, len(test_questions) - 1, options.shown).astype(int))
        shown = [test_questions[place] for place in chosen]
        images = [splits[options.test][1][row]["image"] for row in test.rows[chosen]]
        part = Examples(test.features, test.rows[chosen], test.bags[chosen])
        explained, maps = explain_answers(model, Baseline.load(weights_file), part, images, vocabulary, answers)
        heading = f"{subject['data']}, {options.test}: what answers rest on"
        answers_figure(shown, explained, images, maps, heading).savefig(figure_file)
        asked = [{"question_id": q.question_id, "image_id": q.image_id, "question": q.text} for q in shown]
        return {"shown": [{**q, **found} for q, found in zip(asked, explained, strict=True)]}

    results = {
        "training": stages.run("training", subject, training, files=[weights_file]),
        "answers": stages.run("answers", subject, answering, files=[answers_file]),
        "figure": stages.run("figure", {**subject, "shown": options.shown}, showing, files=[figure_file]),
    }
    data_and_split, accuracy = f"{subject['data']}, {options.test}", results["answers"].get("accuracy")
    if accuracy:
        console.print(accuracy_table(accuracy, data_and_split, options.model))
    else:
        console.print(f"{results['answers']['answered']} answers to {data_and_split}, for the evaluation server")
    console.print(f"Saved {stages.path}, {answers_file.name} and {figure_file.name} beside it", soft_wrap=True)
    return results


def main(options: Options) -> None:
    """Opens the data set, or writes the sample, and runs."""
    options.processes.join()
    console, folder = Console(quiet=not is_first()), options.vqa
    if folder is None:
        announce(console, "a few photographs, and our own questions")
        folder = options.out / "sample"
        in_first(functools.partial(write_sample, folder))
    splits = {split: open_vqa(folder, split, options.version) for split in (*options.train, options.test)}
    run(options, splits, console)


if __name__ == "__main__":
    start("vqa", main, Options)
