"""Concepts of captions: phrases against scikit-learn and regular expressions, data sets, and all of it on a few."""

import dataclasses
import io
import json
import re

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import average_precision_score

import camjax
from camjax.features import FeatureStore, with_linear_classifier
from camjax.terminal import Console
from experiments.concepts import __main__ as concepts
from experiments.concepts import detectors as concept_detectors
from experiments.concepts.captions import gathered, open_coco, open_csv
from experiments.concepts.phrases import STOP_WORDS, checked_phrases, frequent_phrases, mine_phrases, normalized
from experiments.concepts.sample import CAPTIONS, TOLD, VIEWS, sample_captions
from tests.experiments.colors import Identity, painted

QUIET = Console(file=io.StringIO())
VOCABULARY = ["a", "red", "cat", "on", "the", "mat", "old", "in", "snow"]


# --- Phrases.


def test_normalized():
    text = normalized(["A red T-shirt, by the sea.", "  It's MINE (all of it)!", "", "Größe 3"])
    assert text == " a red t shirt | by the sea | it s mine | all of it | größe 3 "
    assert normalized([]) == normalized(["?!"]) == "  "


@pytest.mark.parametrize(
    ("phrase", "caption", "expected"),
    [
        ("red motorcycle", "A Red  Motorcycle in a garage", True),
        ("motorcycle", "Two motorcycles", False),
        ("cat", "concatenate a cat", True),
        ("cat", "concatenate", False),
        ("mirror in lake", "mirror in lake", True),
        ("mirror in lake", "a mirror in lakes", False),
        ("red motorcycle", "painted red, motorcycle for sale", False),
        ("man", "a man's hat", True),
    ],
)
def test_a_phrase_is_found_at_the_borders_of_words_in_any_case(phrase, caption, expected):
    assert (normalized([phrase]) in normalized([caption])) is expected
    # Apart from punctuation, which parts phrases, as a regular expression finds it.
    pattern = r"\b" + r"\s+".join(phrase.split()) + r"\b"
    assert bool(re.search(pattern, caption, re.IGNORECASE)) is expected


def test_a_phrase_does_not_run_on_from_one_caption_to_the_next():
    assert normalized(["red cat"]) not in normalized(["It is red", "Cat"])


@pytest.fixture(scope="module")
def random_captions():
    rng = np.random.default_rng(0)
    return [[" ".join(rng.choice(VOCABULARY, rng.integers(1, 9))) for _ in range(3)] for _ in range(150)]


def test_mined_phrases_are_in_as_many_images_as_scikit_learn_counts(random_captions):
    found = mine_phrases([normalized(captions) for captions in random_captions], min_images=2)
    vectorizer = CountVectorizer(ngram_range=(1, 4), binary=True, token_pattern=r"\w+")
    table = vectorizer.fit_transform([caption for captions in random_captions for caption in captions]).toarray()
    images = table.reshape(150, 3, -1).any(1).sum(0)
    counts = dict(zip(vectorizer.get_feature_names_out(), images.tolist(), strict=True))
    allowed = {
        phrase: count
        for phrase, count in counts.items()
        if count >= 2 and not {phrase.split()[0], phrase.split()[-1]} & STOP_WORDS
    }
    # Of those that are allowed, each but such as are in no image without a certain longer one.
    within = {
        part
        for part in allowed
        for phrase in allowed
        if part != phrase and f" {part} " in f" {phrase} " and counts[part] == counts[phrase]
    }
    assert found == {phrase: count for phrase, count in allowed.items() if phrase not in within}
    assert len(found) > 30 and max(len(phrase.split()) for phrase in found) == 4
    assert list(found.values()) == sorted(found.values(), reverse=True)
    for phrase, count in found.items():
        assert sum(normalized([phrase]) in normalized(captions) for captions in random_captions) == count
    assert {"a", "on", "the", "in"} <= STOP_WORDS and not {"red", "cat", "mat"} & STOP_WORDS


def test_a_phrase_that_is_only_ever_part_of_another_gives_way_to_it():
    texts = [normalized([caption]) for caption in ["a fire hydrant", "the Fire Hydrant!", "fire hydrant", "old snow"]]
    assert mine_phrases(texts, min_images=2) == {"fire hydrant": 3}
    assert mine_phrases([*texts, normalized(["a fire"])], min_images=2) == {"fire": 4, "fire hydrant": 3}
    assert mine_phrases(texts, min_images=2, lengths=(1, 1)) == {"fire": 3, "hydrant": 3}
    assert mine_phrases([*texts, normalized(["a fire"])], min_images=2, lengths=(2, 4)) == {"fire hydrant": 3}


def test_the_most_frequent_of_each_number_of_words():
    captions = ["red cat"] * 5 + ["old dog"] * 4 + ["red snow"] * 3 + ["old mat"] * 2 + ["plain"] * 20
    texts = [normalized([caption]) for caption in captions]
    assert frequent_phrases(texts, 2, min_images=2, lengths=(1, 2)) == ["red", "old", "red cat", "old dog"]
    assert frequent_phrases(texts, 9, min_images=3, lengths=(2, 3)) == ["red cat", "old dog", "red snow"]
    # "plain" is in more than half of them.
    with pytest.raises(ValueError, match=r"no phrase of 1 to 2 words is in 9 to 17 of the 34"):
        frequent_phrases(texts, 2, min_images=9, lengths=(1, 2))


def test_given_phrases():
    texts = [normalized([caption]) for caption in ["a Red cat", "red cat", "red cat", "red dog", "dog", "snow"]]
    assert checked_phrases(["Red Cat", "red", "red  cat"], texts, least=2) == ["red cat", "red"]
    with pytest.raises(ValueError, match=r"1 of the 6 training images have 'red dog'.* at least 2"):
        checked_phrases(["red dog"], texts, least=2)
    with pytest.raises(ValueError, match=r"4 of the 6 .* at least 3 with it, and as many without"):
        checked_phrases(["red"], texts, least=3)
    for phrase in ("red, cat", "!", ""):
        with pytest.raises(ValueError, match="words without punctuation"):
            checked_phrases([phrase], texts, least=1)


# --- Data sets.


def save(path, gray):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 4), gray).save(path, "PNG")


def test_csv_rows_of_an_image_are_one_image(tmp_path):
    save(tmp_path / "images" / "a.png", 1)
    save(tmp_path / "images" / "deep" / "b.png", 2)
    file = tmp_path / "captions.csv"
    file.write_text('caption,image,year\n"Red, and old",a.png,1\nSnow,deep/b.png,2\nA cat,./a.png,3\nX,deep\\b.png,4\n')
    images = open_csv(file, tmp_path / "images")
    assert images.image_ids == ("a.png", "deep/b.png")
    assert images.captions == (("Red, and old", "A cat"), ("Snow", "X"))
    assert [int(images.source[index]["image"][0, 0, 0]) for index in range(len(images.source))] == [1, 2]
    assert images.source.info.name == str(file)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("picture,caption\na.png,x\n", ValueError, "line 1 names the columns picture, caption: expected image and"),
        ("", ValueError, "names the columns nothing"),
        ("image,caption\n", ValueError, "no captions"),
        ("image,caption\na.png,x\na.png,red, and old\n", ValueError, "line 3 has not as many fields"),
        ("image,caption\na.png\n", ValueError, "line 2 has not as many fields"),
        ("image,caption\na.png,x\nc.png,x\n", FileNotFoundError, r"line 3: .*c\.png is missing"),
        ("image,caption\n../a.png,x\n", ValueError, "leads out"),
    ],
)
def test_csv_files_that_are_none(tmp_path, content, error, message):
    save(tmp_path / "a.png", 1)
    (tmp_path / "captions.csv").write_text(content)
    with pytest.raises(error, match=message):
        open_csv(tmp_path / "captions.csv", tmp_path)


def test_what_is_missing_is_shown_with_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)captions\.csv is missing.*lakes/mirror\.jpg.*--captions"):
        open_csv(tmp_path / "captions.csv", tmp_path)
    (tmp_path / "captions.csv").write_text("image,caption\n")
    with pytest.raises(FileNotFoundError, match=r"(?s)images is missing. Expected:"):
        open_csv(tmp_path / "captions.csv", tmp_path / "images")


class CocoCaptions(tfds.core.GeneratorBasedBuilder):
    """A few images, some of them twice, in the features of tfds' coco_captions."""

    name = "coco_captions"
    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="2014", version="1.1.0"),)

    def _info(self):
        features = {
            "captions": tfds.features.Sequence({"id": np.int64, "text": np.str_}),
            "image": tfds.features.Image(encoding_format="jpeg"),
            "image/filename": tfds.features.Text(),
            "image/id": np.int64,
            "objects": tfds.features.Sequence({"area": np.int64, "label": tfds.features.ClassLabel(num_classes=80)}),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(40), "val": self._generate_examples(50)}

    def _generate_examples(self, start):
        for key, number in enumerate([0, 1, 2, 0]):
            _, jpeg = cv2.imencode(".jpg", np.full((8, 8, 3), start + 30 * number, np.uint8))
            captions = [{"id": 10 * key + i, "text": f"Image {number}, caption {key}{i}"} for i in range(2)]
            yield (
                key,
                {
                    "captions": captions,
                    "image": io.BytesIO(jpeg.tobytes()),
                    "image/filename": f"{number}.jpg",
                    "image/id": start + number,
                    "objects": [],
                },
            )


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    CocoCaptions(data_dir=folder).download_and_prepare(file_format=tfds.core.FileFormat.ARRAY_RECORD)
    return folder


def test_coco_captions(coco):
    moves = []
    images = open_coco("train", data_dir=coco, progress=lambda done, total: moves.append((done, total)))
    assert moves == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert sorted(images.image_ids) == ["40", "41", "42"] and images.source.info.split == "train"
    for index, (image_id, captions) in enumerate(zip(images.image_ids, images.captions, strict=True)):
        number = int(image_id) - 40
        assert abs(int(images.source[index]["image"].mean()) - (40 + 30 * number)) <= 1
        assert {caption[: len("Image 0")] for caption in captions} == {f"Image {number}"}
        assert len(captions) == (4 if number == 0 else 2)
    assert len(open_coco("train+val", data_dir=coco).image_ids) == 6


def test_coco_captions_that_are_not_there(coco, tmp_path):
    with pytest.raises(ValueError, match=r"--split test .*train, val"):
        open_coco("test", data_dir=coco)
    with pytest.raises(FileNotFoundError, match="camjax prepare coco_captions"):
        open_coco("train", data_dir=tmp_path)


def test_the_sample_tells_some_captions_of_each_photograph():
    images = sample_captions()
    assert len(images.source) == len(images.image_ids) == len({*images.image_ids}) == len(CAPTIONS) * VIEWS
    assert {len({*captions}) for captions in images.captions} == {TOLD}
    for image_id, captions in zip(images.image_ids, images.captions, strict=True):
        assert {*captions} <= {*CAPTIONS[image_id.split(",")[0]]}


# --- All of it, on images of colored parts and a network whose features are the colors.

RED, GREEN, BLUE = range(3)
BROKEN = 17


def colored_images():
    """60 images, a third with a red part, whose captions say so; one of 20 red ones is not mentioned."""
    rng = np.random.default_rng(0)
    pictures, rows = [], []
    for number in range(60):
        top, left = rng.integers(0, 8, 2)
        value = int(rng.integers(120, 250))
        pictures.append(painted((number % 3, value, top, left, top + 8, left + 8), ((number + 1) % 3, 60, 0, 0, 16, 3)))
        said = "A Red part!" if number % 3 == RED and number != 30 else "Some part"
        rows.append((f"image {number}", number, [said, "Nothing else"]))

    def read(number):
        if number == BROKEN:
            raise ValueError(f"image {number} is damaged")
        return pictures[number]

    # The caption that has the phrase may come with another row of the same image.
    rows = [(image_id, place, captions[:1]) for image_id, place, captions in rows[::-1]] + rows
    return gathered(rows, read, "colors", "all")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """One run: options, what it returned, what it printed."""
    options = concepts.Options(
        model="identity", out=tmp_path_factory.mktemp("concepts"), phrases=("red part",), rounds=2, held_out=0.4
    )
    console = Console(file=io.StringIO(), width=120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(camjax, "load_model", lambda *_, **__: Identity())
        results = concepts.run(options, colored_images(), console)
    return options, results, console.file.getvalue()


def test_it_finds_the_concept(experiment):
    _, (result,), _ = experiment
    images = colored_images()
    assert (result["phrase"], result["held_out"]) == ("red part", round(0.4 * 59))
    assert result["positives"] + result["with_phrase"] == 19
    assert result["random_negatives"] == result["positives"]
    assert result["average_precision"][-1] > 80
    for image in result["ranking"]:
        assert images.image_ids[image["row"]] == image["id"]
        assert image["has_phrase"] == any("Red" in caption for caption in images.captions[image["row"]])
    scores = [image["score"] for image in result["ranking"]]
    assert scores == sorted(scores, reverse=True)


def test_average_precision_is_that_of_scikit_learn_on_the_means_of_the_maps(experiment):
    options, (result,), _ = experiment
    images, detector = colored_images(), np.load(options.out / "detectors" / "red-part.npz")
    localizer = with_linear_classifier(Identity(), detector["kernel"][:, None], detector["bias"][None])
    pictures = np.stack([images.source[image["row"]]["image"] for image in result["ranking"]])
    maps = np.asarray(camjax.cam_fn(localizer, pictures, np.zeros(len(pictures), np.int32)).maps)
    scores = maps.mean((1, 2, 3)) + detector["bias"]
    np.testing.assert_allclose(scores, [image["score"] for image in result["ranking"]], atol=1e-4)
    # All held-out images are in a ranking this short.
    assert len(result["ranking"]) == result["held_out"]
    right = [image["has_phrase"] for image in result["ranking"]]
    assert 100 * average_precision_score(right, scores) == pytest.approx(result["average_precision"][-1], abs=1e-6)


def test_what_it_prints_and_leaves(experiment):
    options, (result,), printed = experiment
    assert "1 images can't be read and are left out: image 17 is damaged" in printed
    row = next(line for line in printed.splitlines() if line.strip().startswith("red part"))
    expected = [result["positives"], result["random_negatives"], "+", result["mined"], result["with_phrase"]]
    precisions = [f"{result['average_precision'][place]:.1f}" for place in (-1, 0)]
    assert row.split()[2:-1] == [*map(str, expected), *precisions]
    stages = json.loads((options.out / "results.json").read_text())
    assert {"phrase": "red part", **stages["concept red part"]["results"]} == result
    assert (options.out / "red-part.png").stat().st_size > 10_000
    assert FeatureStore(options.out / "features").shape == (60, 3)


def test_the_same_command_trains_nothing_again(experiment, monkeypatch):
    options, results, _ = experiment
    monkeypatch.setattr(camjax, "load_model", lambda *_, **__: Identity())

    def fail(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(concept_detectors, "mine_hard_negatives", fail)
    assert concepts.run(options, colored_images(), QUIET) == results
    with pytest.raises(ValueError, match="rounds was 2, is 1"):
        concepts.run(dataclasses.replace(options, rounds=1), colored_images(), QUIET)
    with pytest.raises(AssertionError, match="computed again"):
        concepts.run(dataclasses.replace(options, phrases=("some part",)), colored_images(), QUIET)


def test_a_concept_that_no_held_out_image_has(tmp_path):
    images = colored_images()
    rng = np.random.default_rng(0)
    store = rng.normal(size=(60, 3)).astype(np.float32)
    has_phrase = np.arange(60) < 20
    options = concepts.Options(out=tmp_path, penalties=(0.1,))
    result = concept_detectors.run_concept(
        store, images.image_ids, has_phrase, np.arange(40), np.arange(40, 60), tmp_path / "d" / "x.npz", options
    )
    assert result["average_precision"] == [] and result["with_phrase"] == 0
    table = concept_detectors.concept_table([{"phrase": "x", **result}], "network", "data")
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    assert "x" in console.file.getvalue() and "mean" not in console.file.getvalue()


@pytest.mark.long
def test_the_sample(tmp_path):
    options = concepts.Options(sample=True, out=tmp_path, num_phrases=2)
    console = Console(file=io.StringIO(), width=120)
    results = concepts.run(options, concepts.open_images(options, console), console)
    assert "numbers mean nothing" in console.file.getvalue()
    assert len(results) == 8 and {len(result["phrase"].split()) for result in results} == {1, 2, 3, 4}
    assert len(list(tmp_path.glob("*.png"))) == 8
