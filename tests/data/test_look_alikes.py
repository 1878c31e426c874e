"""The set of look-alikes: classes of a family differ inside the part's box alone; and the arithmetic of its table."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from camjax.data import look_alikes, scenes
from camjax.data.annotated import open_annotated

FEW = {"train": 18, "validation": 9, "test": 9}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("look_alikes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look_alikes, "NUM_IMAGES", FEW)
        open_annotated("look_alikes", "train", data_dir=folder)
    return folder


def inside(box):
    """(64, 64) bool of the pixels in a box in 0..1."""
    y0, x0, y1, x1 = np.rint(box * 64).astype(int)
    pixels = np.zeros((64, 64), bool)
    pixels[y0:y1, x0:x1] = True
    return pixels


def test_another_part_changes_its_box_alone_and_another_family_leaves_it():
    digits, texture = scenes.load_digits()[0], scenes.load_textures()["grass"]
    ones, nothing = np.ones((8, 8), np.float32), np.zeros((8, 8), np.float32)
    sides, places = set(), set()
    for seed in range(40):

        def compose(family, part, seed=seed):
            return look_alikes.compose_pair(family, part, texture, np.random.default_rng(seed))

        image, box, mask = compose(digits[0], digits[1])
        other, same_box, other_mask = compose(digits[0], digits[2])
        square, ground = inside(box), compose(nothing, nothing)[0]
        np.testing.assert_array_equal(box, same_box)
        changed = (image != other).any(-1)
        assert changed.any() and not (changed & ~square).any()
        assert mask.any() and other_mask.any() and not ((mask | other_mask) & ~square).any()
        # The part fills its square, and no family reaches into it.
        assert (compose(nothing, ones)[2] == square).all()
        family = (compose(ones, nothing)[0] != ground).any(-1)
        assert not (family & square).any()
        rows, columns = (np.flatnonzero(family.any(axis)) for axis in (1, 0))
        assert min(rows[0], columns[0]) >= 4 and max(rows[-1], columns[-1]) < 60
        sides.add((len(rows), round(float(box[2] - box[0]) * 64)))
        center = (box[:2] + box[2:]) * 32 - [(rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2]
        places.add((bool(abs(center[0]) > abs(center[1])), bool(center.sum() > 0)))
    assert {large for large, _ in sides} <= set(range(26, 33)) and {small for _, small in sides} == set(range(14, 19))
    assert len(places) == 4  # above, below, left and right


def test_classes_are_those_of_both_digits_and_splits_share_none(data_dir):
    _, labels = scenes.load_digits()
    assert look_alikes.CLASS_NAMES[:4] == ("three with zero", "three with one", "three with four", "six with zero")
    for split, count in FEW.items():
        source = open_annotated("look_alikes", split, data_dir=data_dir)
        assert len(source) == count and source.info.class_names == look_alikes.CLASS_NAMES
        assert np.bincount([source.annotation(i).label for i in range(count)]).tolist() == [count // 9] * 9
        allowed = set(scenes.split_digit_ids(split, 1797))
        for i in range(count):
            annotation = source.annotation(i)
            found = re.fullmatch(r"\w+_\d{5}_(brick|grass|gravel)_family(\d{4})_part(\d{4})\.png", annotation.filename)
            family, part = int(found[2]), int(found[3])
            assert {family, part} <= allowed
            digits = look_alikes.FAMILIES[annotation.label // 3], look_alikes.PARTS[annotation.label % 3]
            assert (labels[family], labels[part]) == digits
            assert source.mask(i).any() and not (source.mask(i).astype(bool) & ~inside(annotation.boxes[0])).any()


def test_members_of_a_family():
    np.testing.assert_array_equal(look_alikes.family_members(np.array([0, 5, 8])), [[0, 1, 2], [3, 4, 5], [6, 7, 8]])


def test_the_arithmetic_of_the_table_by_hand():
    path = Path(__file__).parents[2] / "docs" / "fine_grained.py"
    spec = importlib.util.spec_from_file_location("fine_grained", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # Student's t of four degrees of freedom is 2.776 at 97.5 %; the standard error of 1..5 is sqrt(2.5 / 5).
    assert script.interval([1, 2, 3, 4, 5]) == pytest.approx((3, 2.7764 * 0.5**0.5), abs=1e-4)
    boxes = np.array([[0, 0, 0.5, 0.5]] * 2, np.float32)
    maps = np.zeros((2, 4, 4), np.float32)
    maps[0, 0, 1], maps[0, 3, 3] = 3, 1  # on the part, three quarters of the sum
    maps[1, 3, 0], maps[1, 1, 1], maps[1, 2, 2] = 2, 2, -5  # of equal values the first in raster order is the maximum
    assert script.on_the_part(maps, boxes, (4, 4)) == pytest.approx({"pointing_game": 100, "relevance_mass": 62.5})
    assert script.on_the_part(maps[:, ::-1, ::-1], boxes, (4, 4)) == pytest.approx(
        {"pointing_game": 0, "relevance_mass": 12.5}
    )
