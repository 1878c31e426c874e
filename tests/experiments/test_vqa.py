"""Visual question answering: its data, the official accuracy on cases told by hand, the baseline, the experiment."""

import dataclasses
import io
import json
import re

import cv2
import jax
import numpy as np
import pytest
from conftest import random_network

import camjax
from camjax.errors import InputError
from camjax.features import gap_features
from camjax.terminal import Console
from experiments.vqa import __main__ as vqa
from experiments.vqa.accuracy import mean_accuracies, normalize_answer, official_accuracy, simple_accuracy
from experiments.vqa.baseline import (
    ANSWER_NORM,
    ANSWER_RATE,
    DECAY,
    GRADIENT_NORM,
    MOMENTUM,
    WORD_RATE,
    Baseline,
    Examples,
    best_answers,
    logits,
    train_baseline,
)
from experiments.vqa.data import (
    UNKNOWN,
    CocoImages,
    Question,
    bags_of_words,
    frequent_answers,
    open_vqa,
    question_words,
    read_questions,
    words_of,
)
from experiments.vqa.maps import explain_answers
from tests.experiments.colors import TINY

QUIET = Console(file=io.StringIO())


# --- Answers, normalized as the official evaluation code does.


@pytest.mark.parametrize(
    ("answer", "normalized"),
    [
        ("Yes", "yes"),
        ("the red bus", "red bus"),
        ("A", ""),
        ("two dogs", "2 dogs"),
        ("None", "0"),
        ("eleven", "eleven"),
        ("dont know", "don't know"),
        ("it's the dogs' bowl", "it's dogs' bowl"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),
        ("somebody'd", "somebodyd"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("black- white", "black white"),
        ("t-shirt, blue", "t shirt blue"),
        ("1,000", "1000"),
        ("1,000/2", "10002"),
        ("2.50", "2.50"),
        ("st. bernard.", "st bernard"),
        ("2:50 pm", "2:50 pm"),
        ("[left]", "left"),
        ("why?!", "why"),
        ("  a  an   apple ", "apple"),
    ],
)
def test_normalized_answers(answer, normalized):
    assert normalize_answer(answer) == normalized


# --- Accuracy.


@pytest.mark.parametrize(
    ("matches", "official", "simple"),
    # A set of nine lacks one person: one of the matches, or one of the others.
    [
        (0, 0, 0),
        (1, 9 / 10 * 1 / 3, 1 / 3),
        (2, (2 * 1 / 3 + 8 * 2 / 3) / 10, 2 / 3),
        (3, (3 * 2 / 3 + 7 * 1) / 10, 1),
        (4, 1, 1),
        (9, 1, 1),
        (10, 1, 1),
    ],
)
def test_accuracy_by_the_number_of_people(matches, official, simple):
    people = ["cat"] * matches + [f"dog {number}" for number in range(10 - matches)]
    assert official_accuracy("cat", people) == pytest.approx(official)
    assert simple_accuracy("cat", people) == pytest.approx(simple)


def test_answers_are_compared_normalized():
    assert simple_accuracy("two", ["2", "Two", "two.", *["3"] * 7]) == 1
    assert simple_accuracy("the  cat", ["cat", "a cat", *["dog"] * 8]) == pytest.approx(2 / 3)
    assert simple_accuracy("cat\n", ["cat\t", *["dog"] * 9]) == pytest.approx(1 / 3)


def test_answers_that_all_people_share_are_compared_as_they_are():
    assert official_accuracy("Grown-up", ["grown-up"] * 10) == 1
    assert official_accuracy("grown up", ["grown-up"] * 10) == 0
    assert official_accuracy("grown up", ["grown-up"] * 9 + ["child"]) == 1


def test_mean_accuracies():
    people = [["yes"] * 10, ["no"] * 10, ["3"] * 3 + ["4"] * 7, ["red"] * 10]
    found = mean_accuracies(["yes", "yes", "three", "red"], people, ["yes/no", "yes/no", "number", "other"])
    assert found["per_answer_type"] == pytest.approx({"yes/no": 50, "number": 90, "other": 100})
    assert found["official"] == pytest.approx(72.5) and found["simple"] == pytest.approx(75)
    assert found["questions"] == {"yes/no": 2, "number": 1, "other": 1}
    with pytest.raises(ValueError, match="expected the same number"):
        mean_accuracies(["yes"], [], [])
    with pytest.raises(ValueError, match="no people's answers"):
        official_accuracy("yes", [])


# --- Words.


def test_words():
    assert words_of("What's on the cat-tree, 2 cats?") == ["what's", "on", "the", "cat", "tree", "2", "cats"]


def test_vocabularies_are_sorted_by_frequency_then_by_the_alphabet():
    texts = "is it red?", "is it on?", "Is this it", "no"
    questions = [
        Question(i, 0, text, answer=answer) for i, (text, answer) in enumerate(zip(texts, "baab", strict=True))
    ]
    assert question_words(questions, 1) == (UNKNOWN, "is", "it", "no", "on", "red", "this")
    vocabulary = question_words(questions, 3)
    assert vocabulary == (UNKNOWN, "is", "it")
    assert frequent_answers(questions, 1) == ("a",) and frequent_answers(questions, 9) == ("a", "b")
    asked = [Question(0, 0, "it is it"), Question(1, 0, "red it on"), Question(2, 0, "?")]
    assert bags_of_words(asked, vocabulary).tolist() == [[1, 2], [0, 2], [3, 3]]


# --- Files.


def write_vqa(folder, splits, prefix="", colors=None):
    """Questions "which color?" and "is it red?" about images of one color; an image id says which."""
    names = ["red", "green", "blue"]
    folder.mkdir(exist_ok=True)
    for split, image_ids in splits.items():
        questions, annotations = [], []
        (folder / split).mkdir(exist_ok=True)
        for image_id in image_ids:
            pixels = np.random.default_rng(image_id).integers(0, 40, (40, 50, 3), dtype=np.uint8)
            pixels[10:30, 10:30, image_id % 3] = 250
            cv2.imwrite(str(folder / split / f"COCO_{split}_{image_id:012d}.jpg"), pixels[..., ::-1])
            color = names[image_id % 3]
            answered = (
                ("Which color?", "other", [color] * 7 + ["dark"] * 3),
                ("Is it red?", "yes/no", ["yes" if color == "red" else "no"] * 10),
            )
            for number, (text, kind, people) in enumerate(answered):
                ids = {"question_id": 10 * image_id + number, "image_id": image_id}
                questions.append({**ids, "question": text})
                listed = [{"answer": answer, "answer_id": place} for place, answer in enumerate(people, 1)]
                annotations.append({**ids, "answers": listed, "multiple_choice_answer": people[0], "answer_type": kind})
        (folder / f"{prefix}OpenEnded_mscoco_{split}_questions.json").write_text(json.dumps({"questions": questions}))
        annotated = json.dumps({"annotations": annotations})
        (folder / f"{prefix}mscoco_{split}_annotations.json").write_text(annotated)


def test_questions_and_images_are_read(tmp_path):
    write_vqa(tmp_path, {"train2014": [9, 4]}, prefix="v2_")
    questions, images = open_vqa(tmp_path, "train2014", "v2")
    assert [question.question_id for question in questions] == [90, 91, 40, 41]
    expected = Question(41, 4, "Is it red?", ("no",) * 10, "no", "yes/no")
    assert questions[3] == expected and questions[0].answer == "red"
    assert images.ids.tolist() == [4, 9] and images.rows(questions).tolist() == [1, 1, 0, 0]
    assert images[1]["filename"] == "train2014/COCO_train2014_000000000009.jpg"
    assert images[1]["image"].shape == (40, 50, 3) and images[1]["image"][20, 20].argmax() == 0


def test_the_answers_to_test_questions_are_not_expected(tmp_path):
    write_vqa(tmp_path, {"test2015": [1]})
    (tmp_path / "mscoco_test2015_annotations.json").unlink()
    (tmp_path / "OpenEnded_mscoco_test2015_questions.json").rename(
        tmp_path / "OpenEnded_mscoco_test-dev2015_questions.json"
    )
    questions, images = open_vqa(tmp_path, "test-dev2015")
    assert questions[0] == Question(10, 1, "Which color?") and images[0]["filename"].startswith("test2015/")


def test_a_folder_without_the_data_set_shows_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)mscoco_val2014_annotations.json.*val2014/.*COCO_val2014_0{11}9"):
        open_vqa(tmp_path, "val2014")
    write_vqa(tmp_path, {"val2014": [1, 2, 3]})
    (tmp_path / "val2014" / "COCO_val2014_000000000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"COCO_val2014_000000000002\.jpg is missing, with 0 others"):
        open_vqa(tmp_path, "val2014")
    with pytest.raises(ValueError, match="version 'v3'"):
        open_vqa(tmp_path, "val2014", "v3")


def without_one(entries):
    del entries[1]


def twice(entries):
    entries.append(dict(entries[0]))


def about_another_image(entries):
    entries[1]["image_id"] = 77


def without_a_key(entries):
    del entries[2]["image_id"]


def without_entries(entries):
    entries.clear()


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("questions", without_one, r"annotations.json has the question_id 11, and .*questions.json lacks it"),
        ("annotations", without_one, r"questions.json has the question_id 11, and .*annotations.json lacks it"),
        ("questions", twice, "questions.json has question_id 10 twice"),
        ("annotations", twice, "annotations.json has question_id 10 twice"),
        ("annotations", about_another_image, "question_id 11 is about the image 1 in .* and about 77"),
        ("annotations", without_a_key, r"annotations.json .*annotations\.2\.image_id is missing"),
        ("questions", without_entries, r"questions is \[\]: .* at least 1 item"),
    ],
)
def test_files_that_do_not_fit_together(kind, change, message, tmp_path):
    write_vqa(tmp_path, {"train2014": [1, 2]})
    paths = {
        "questions": tmp_path / "OpenEnded_mscoco_train2014_questions.json",
        "annotations": tmp_path / "mscoco_train2014_annotations.json",
    }
    content = json.loads(paths[kind].read_text())
    change(content[kind])
    paths[kind].write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_questions(paths["questions"], paths["annotations"])


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "q.json").write_text('{"questions": [')
    with pytest.raises(ValueError, match=r"q\.json is damaged.* EOF"):
        read_questions(tmp_path / "q.json")


@pytest.mark.parametrize("kind", ["questions", "annotations"])
def test_mutated_files_are_read_or_refused(kind, tmp_path):
    write_vqa(tmp_path, {"train2014": [1, 2]})
    paths = {
        "questions": tmp_path / "OpenEnded_mscoco_train2014_questions.json",
        "annotations": tmp_path / "mscoco_train2014_annotations.json",
    }
    whole, rng = paths[kind].read_bytes(), np.random.default_rng(0)
    tokens = [b"null", b"[]", b"{}", b'"a"', b"-1", b"1e999", b"9" * 30, b'"\\ud800"', b"[" * 3000, b"\xff", b"true"]
    refused = 0
    for turn in range(150):
        first, end = np.sort(rng.integers(0, len(whole), 2))
        token = tokens[turn % len(tokens)]
        # Half of them replace one value, so that what is left is JSON.
        values = list(re.finditer(rb"(?<=: )[^,}\[{]+", whole))
        value = values[rng.integers(len(values))]
        first, end = value.span() if turn % 2 else (first, min(end, first + 8))
        paths[kind].write_bytes(whole[:first] + token + whole[end:])
        try:
            found = read_questions(paths["questions"], paths["annotations"])
            CocoImages(tmp_path, "train2014", (question.image_id for question in found))
        except (InputError, FileNotFoundError):
            refused += 1
    assert refused > 100


# --- The baseline.


def random_examples(count, seed=0):
    rng = np.random.default_rng(seed)
    bags = np.sort(rng.permuted(np.tile(np.arange(5), (count, 1)), axis=1)[:, :3], axis=1).astype(np.int32)
    bags[::2, 2] = 5  # behind the vocabulary: no word
    features = rng.normal(size=(4, 6)).astype(np.float32)
    return Examples(features, rng.integers(0, 4, count), bags), rng.integers(0, 3, count)


def by_hand(weights, examples):
    """(n, A): the sum of a bag's word vectors, the image's features behind it, and the dense layer."""
    bags = [weights.word_vectors[bag[bag < 5]].sum(0) for bag in examples.bags]
    return np.concatenate([bags, examples.features[examples.rows]], axis=1) @ weights.kernel


def test_logits_are_the_words_and_the_image():
    examples, _ = random_examples(7)
    rng = np.random.default_rng(1)
    weights = Baseline(*(rng.normal(size=shape).astype(np.float32) for shape in ((5, 2), (8, 3))))
    expected = by_hand(weights, examples)
    np.testing.assert_allclose(logits(weights, examples), expected, rtol=1e-4, atol=1e-5)
    parts = examples.features[examples.rows] @ weights.image_kernel
    word_kernel = np.asarray(weights.word_kernel)
    parts += [word_kernel[bag[bag < 5]].sum(0) for bag in examples.bags]
    np.testing.assert_allclose(parts, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(best_answers(weights, examples), expected.argmax(1))


def test_training_takes_the_steps_of_the_published_rule():
    """Three steps by NumPy, from the weights that training starts with: those after no round."""
    examples, answers = random_examples(10)
    settings = {"width": 2, "batch_size": 10, "seed": 4}
    weights, losses = train_baseline(examples, answers, 5, 3, epochs=0, **settings)
    assert losses == [] and np.abs(weights.word_vectors).max() <= 5**-0.5 and np.abs(weights.kernel).max() <= 8**-0.5
    trained, losses = train_baseline(examples, answers, 5, 3, epochs=3, **settings)
    vectors, kernel = (np.array(part, np.float64) for part in weights)
    velocities = [np.zeros_like(vectors), np.zeros_like(kernel)]
    for step in range(3):
        bags = [bag[bag < 5] for bag in examples.bags]
        of_bags = np.stack([vectors[bag].sum(0) for bag in bags])
        inputs = np.concatenate([of_bags, examples.features[examples.rows]], axis=1)
        shares = np.exp(inputs @ kernel)
        shares /= shares.sum(1, keepdims=True)
        assert losses[step] == pytest.approx(-np.log(shares[np.arange(10), answers]).mean(), rel=1e-5)
        errors = shares - np.eye(3)[answers]
        of_words = np.zeros_like(vectors)
        for bag, error in zip(bags, errors, strict=True):
            of_words[bag] += error @ kernel[:2].T
        for part, (gradient, rate) in enumerate([(of_words, WORD_RATE), (inputs.T @ errors, ANSWER_RATE)]):
            gradient = gradient * min(1, GRADIENT_NORM / np.linalg.norm(gradient))
            velocities[part] = MOMENTUM * velocities[part] - rate * gradient
        vectors = (vectors + velocities[0]) * (1 - WORD_RATE * DECAY)
        kernel = (kernel + velocities[1]) * (1 - ANSWER_RATE * DECAY)
    np.testing.assert_allclose(trained.word_vectors, vectors, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(trained.kernel, kernel, rtol=1e-4, atol=1e-6)


def test_weights_stay_within_their_norm():
    examples, answers = random_examples(3)
    # n x 1600 uniform numbers up to 1 / sqrt(n) have a norm of about sqrt(1600 / 3) = 23: over 20 from the start.
    first, _ = train_baseline(examples, answers, 5, 1600, width=4, epochs=0, batch_size=3)
    weights, _ = train_baseline(examples, answers, 5, 1600, width=4, epochs=1, batch_size=3)
    assert np.linalg.norm(first.kernel) > ANSWER_NORM + 2
    assert np.linalg.norm(weights.kernel) == pytest.approx(ANSWER_NORM, rel=1e-5)


def test_training_is_the_same_by_its_seed_and_counts_each_example_once():
    examples, answers = random_examples(10)
    settings = {"width": 2, "epochs": 3}
    first, again, other = (
        train_baseline(examples, answers, 5, 3, batch_size=10, seed=s, **settings) for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first[0].kernel, again[0].kernel)
    assert first[1] == again[1] != other[1]
    # A batch that is filled up counts its examples alone.
    filled = train_baseline(examples, answers, 5, 3, batch_size=16, seed=0, **settings)
    assert filled[1] == pytest.approx(first[1], rel=1e-5)
    np.testing.assert_allclose(filled[0].kernel, first[0].kernel, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="no question to train on"):
        train_baseline(examples, answers[:0], 5, 3)


# --- Maps, and all of it.


@pytest.fixture(scope="module")
def tiny():
    return random_network(TINY, 3)


def test_the_mean_of_a_map_is_the_part_of_the_image(tiny, tmp_path):
    write_vqa(tmp_path, {"val2014": [1, 2, 3]})
    questions, images = open_vqa(tmp_path, "val2014")
    vocabulary = question_words(questions, 1)
    features = gap_features(tiny, images)
    rng = np.random.default_rng(0)
    shapes = (len(vocabulary), 4), (4 + features.shape[1], 5)
    weights = Baseline(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))
    examples = Examples(features, images.rows(questions), bags_of_words(questions, vocabulary))
    pixels = [images[row]["image"] for row in examples.rows]
    found, maps = explain_answers(tiny, weights, examples, pixels, vocabulary, "abcde")
    values = np.asarray(logits(weights, examples))
    for row, explained in enumerate(found):
        answer = "abcde".index(explained["answer"])
        assert answer == values[row].argmax()
        assert explained["logit"] == pytest.approx(values[row, answer])
        assert explained["probability"] == pytest.approx(jax.nn.softmax(values[row])[answer])
        part = features[examples.rows[row]] @ weights.kernel[4:, answer]
        assert explained["image_part"] == pytest.approx(part, rel=1e-3, abs=1e-3)
        assert maps[row].mean() == pytest.approx(explained["image_part"], rel=1e-4, abs=1e-4)
        assert set(explained["words"]) == set(words_of(questions[row].text))
        assert list(explained["words"].values()) == sorted(explained["words"].values(), reverse=True)
        total = explained["image_part"] + sum(explained["words"].values())
        assert total == pytest.approx(explained["logit"], rel=1e-3, abs=1e-3)


def test_the_experiment(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(camjax, "load_model", lambda *_, **__: tiny)
    write_vqa(tmp_path / "vqa", {"train2014": range(1, 13), "val2014": range(21, 27)})
    (tmp_path / "vqa" / "val2014" / "COCO_val2014_000000000025.jpg").write_bytes(b"no image")
    options = vqa.Options(
        vqa=tmp_path / "vqa",
        out=tmp_path / "out",
        model="tiny",
        answers=4,
        min_count=1,
        width=16,
        epochs=60,
        batch_size=8,
        shown=4,
    )
    console = Console(file=io.StringIO(), width=200)
    splits = {split: open_vqa(options.vqa, split) for split in ("train2014", "val2014")}
    results = vqa.run(options, splits, console)
    assert "2 questions about these images are left out" in console.file.getvalue()
    numbers = {key: results["training"][key] for key in ("questions", "trained_on", "words", "answers")}
    # Of "red", "green", "blue", "yes" and "no" (8 times) the four most frequent, in alphabetical order: "yes" is out.
    assert numbers == {"questions": 24, "trained_on": 20, "words": 6, "answers": 4}
    assert results["training"]["loss"][-1] < results["training"]["loss"][0] / 2
    assert (results["answers"]["questions"], results["answers"]["answered"]) == (12, 10)
    listed = json.loads((options.out / "answers.json").read_text())
    assert [set(entry) for entry in listed] == [{"question_id", "answer"}] * 10
    given = {entry["question_id"]: entry["answer"] for entry in listed}
    people = {question.question_id: question for question in splits["val2014"][0] if question.image_id != 25}
    kept = [people[question_id] for question_id in given]
    expected = mean_accuracies(list(given.values()), [q.people for q in kept], [q.answer_type for q in kept])
    assert results["answers"]["accuracy"] == expected and expected["questions"] == {"other": 5, "yes/no": 5}
    shown = results["figure"]["shown"]
    assert len(shown) == 4 and all(given[entry["question_id"]] == entry["answer"] for entry in shown)
    assert (options.out / "vqa.png").stat().st_size > 10_000

    monkeypatch.setattr(vqa, "train_baseline", lambda *_, **__: pytest.fail("trained again"))
    assert vqa.run(options, splits, QUIET) == results
    with pytest.raises(ValueError, match="epochs was 60, is 3"):
        vqa.run(dataclasses.replace(options, epochs=3), splits, QUIET)


def test_answers_to_secret_questions_are_for_the_evaluation_server(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(camjax, "load_model", lambda *_, **__: tiny)
    write_vqa(tmp_path / "vqa", {"train2014": [1, 2], "val2014": [3], "test2015": [5, 6]})
    options = vqa.Options(
        vqa=tmp_path / "vqa",
        train=("train2014", "val2014"),
        test="test2015",
        out=tmp_path / "out",
        min_count=1,
        width=4,
        epochs=1,
        shown=1,
    )
    splits = {split: open_vqa(options.vqa, split) for split in (*options.train, options.test)}
    console = Console(file=io.StringIO(), width=200)
    results = vqa.run(options, splits, console)
    assert results["training"]["questions"] == 6 and results["answers"] == {"questions": 4, "answered": 4}
    listed = json.loads((options.out / "answers.json").read_text())
    assert [entry["question_id"] for entry in listed] == [50, 51, 60, 61]
    assert "for the evaluation server" in console.file.getvalue()


@pytest.mark.long
def test_the_sample(tmp_path):
    vqa.main(vqa.Options(sample=True, out=tmp_path))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["answers"]["results"]["accuracy"]["official"] > 60
    vqa.main(vqa.Options(sample=True, out=tmp_path))  # goes on behind what is there
