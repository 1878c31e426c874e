import io
import re
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from camjax.data import scenes

FEW = {"train": 60, "validation": 30, "test": 30}


def prepare(data_dir):
    """Prepare the first scenes of each split: the builder seeds every scene by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "NUM_SCENES", FEW)
        builder = scenes.Scenes(data_dir=data_dir)
        builder.download_and_prepare(file_format="array_record")
    return builder


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def examples(builder):
    return {split: list(builder.as_data_source(split=split)) for split in FEW}


def digit_ids(split_examples):
    names = [example["image/filename"].decode() for example in split_examples]
    return [int(re.fullmatch(r"\w+_\d{5}_(brick|grass|gravel)_digit(\d{4})\.png", name)[2]) for name in names]


def test_features_are_named_as_in_caltech_birds2011(builder):
    expected = {"image", "image/filename", "label", "label_name", "bbox", "segmentation_mask"}
    assert set(builder.info.features) == expected
    assert builder.info.features["label"].names[:2] == ["zero", "one"]


def test_classes_are_balanced_and_are_those_of_the_digits(examples):
    _, labels = scenes.load_digits()
    for split, split_examples in examples.items():
        got = [example["label"] for example in split_examples]
        assert np.bincount(got).tolist() == [FEW[split] // 10] * 10
        assert got == labels[digit_ids(split_examples)].tolist()
        names = [example["label_name"].decode() for example in split_examples]
        assert names == [scenes.CLASS_NAMES[label] for label in got]


def test_splits_share_no_digit(examples):
    allowed = {split: set(scenes.split_digit_ids(split, 1797)) for split in FEW}
    assert sorted(i for ids in allowed.values() for i in ids) == list(range(1797))
    for split, split_examples in examples.items():
        assert set(digit_ids(split_examples)) <= allowed[split]


def test_every_class_has_digits_in_every_split():
    _, labels = scenes.load_digits()
    for split in FEW:
        assert np.bincount(labels[scenes.split_digit_ids(split, 1797)], minlength=10).min() >= 30


def test_splits_share_no_texture_pixel(monkeypatch):
    columns = np.broadcast_to(np.arange(512), (512, 512))
    seen = []
    monkeypatch.setattr(scenes, "load_textures", lambda: dict.fromkeys(scenes.TEXTURES, columns))
    monkeypatch.setattr(scenes, "_png", lambda image: b"")

    def compose(digit, texture, rng):
        seen.append((texture.min(), texture.max()))
        return np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), bool)

    monkeypatch.setattr(scenes, "compose_scene", compose)
    ranges = []
    for split in FEW:
        next(scenes.Scenes._generate_examples(None, split))
        ranges.append(seen[-1])
    assert ranges == [(0, 170), (171, 341), (342, 511)]


def test_boxes_are_the_tight_extent_of_the_mask(examples):
    for example in examples["train"] + examples["validation"] + examples["test"]:
        mask = example["segmentation_mask"][..., 0]
        assert set(np.unique(mask)) == {0, 255}
        x, y, width, height = cv2.boundingRect(mask)
        expected = np.array([y, x, y + height, x + width]) / 64
        np.testing.assert_array_equal(example["bbox"], expected)


def test_tight_box_by_hand():
    mask = np.zeros((8, 16), bool)
    mask[2, 5] = mask[6, 3] = True
    np.testing.assert_array_equal(scenes.tight_box(mask), [2 / 8, 3 / 16, 7 / 8, 6 / 16])


def test_ink_is_where_the_mask_is_and_brighter_than_its_ground():
    texture = np.random.default_rng(0).integers(0, 256, (512, 170)).astype(np.uint8)
    digit = scenes.load_digits()[0][0]
    for seed in range(20):
        image, mask = scenes.compose_scene(digit, texture, np.random.default_rng(seed))
        ground, nothing = scenes.compose_scene(0 * digit, texture, np.random.default_rng(seed))
        assert not nothing.any()
        brighter = image.astype(int).sum(axis=2) - ground.astype(int).sum(axis=2)
        assert (brighter[mask] > 0).all()
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        outside = np.ones_like(mask)
        outside[max(rows[0] - 8, 0) : rows[-1] + 9, max(columns[0] - 12, 0) : columns[-1] + 13] = False
        assert (image[outside] == ground[outside]).all()


def test_size_place_ink_and_ground_do_not_depend_on_the_digit():
    texture = np.random.default_rng(0).integers(0, 256, (512, 170)).astype(np.uint8)
    digits = scenes.load_digits()[0]
    states, squares = [], []
    for digit in (digits[0], digits[1], np.ones((8, 8), np.float32)):
        rng = np.random.default_rng(3)
        squares.append(scenes.compose_scene(digit, texture, rng)[1])
        states.append(rng.bit_generator.state)
    assert states[0] == states[1] == states[2]
    assert not (squares[0] & ~squares[2]).any() and not (squares[1] & ~squares[2]).any()


def test_images_are_stored_as_rgb(monkeypatch):
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    monkeypatch.setattr(scenes, "compose_scene", lambda *_: (red, np.ones((64, 64), bool)))
    _, example = next(scenes.Scenes._generate_examples(None, "train"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(example["image"]))), red)


def test_a_centered_box_finds_few_digits():
    digits, texture = scenes.load_digits()[0], scenes.load_textures()["brick"]
    rng = np.random.default_rng(0)
    boxes = np.stack([scenes.tight_box(scenes.compose_scene(digits[i], texture, rng)[1]) for i in range(0, 1797, 3)])
    overlap = np.minimum(boxes[:, 2:], 0.75) - np.maximum(boxes[:, :2], 0.25)
    intersection = overlap.clip(0).prod(axis=1)
    iou = intersection / (0.25 + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - intersection)
    assert (iou >= 0.5).mean() < 0.2


def test_a_second_build_gives_the_same_bytes(builder, tmp_path):
    again = prepare(tmp_path)
    first = sorted(builder.data_path.iterdir())
    second = sorted(again.data_path.iterdir())
    assert [path.name for path in first] == [path.name for path in second]
    assert len(first) >= 5
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


@pytest.mark.parametrize("package", ["sklearn", "skimage"])
def test_a_missing_package_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'(?s){package}.*pip install "camjax\[experiments\]"'):
        scenes.load_digits()
        scenes.load_textures()
