import itertools
import pickle

import cv2
import numpy as np
import pytest

from camjax.data.fake import FakeImages
from camjax.data.loader import train_batches


@pytest.mark.parametrize("jpeg", [False, True])
def test_examples_have_the_size_and_classes_asked_for(jpeg):
    source = FakeImages(50, num_classes=7, image_size=(30, 44), jpeg=jpeg, distinct=4)
    assert len(source) == source.info.num_examples == 50 and source.info.num_classes == 7
    examples = list(source)
    assert len(examples) == 50
    assert [example["label"] for example in examples] == [i % 7 for i in range(50)]
    assert {(example["image"].shape, example["image"].dtype.name) for example in examples} == {((30, 44, 3), "uint8")}
    assert len({example["image"].tobytes() for example in examples}) == 4
    np.testing.assert_array_equal(examples[1]["image"], examples[5]["image"])
    with pytest.raises(IndexError, match="index 50 is out of range"):
        source[50]


def test_the_seed_decides_the_images():
    first, same, other = (FakeImages(1, image_size=(20, 20), seed=seed)[0]["image"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).mean() > 0.9


def test_jpegs_are_those_of_the_decoded_images_and_weigh_what_photographs_do():
    decoded, stored = (FakeImages(1, jpeg=jpeg)[0]["image"] for jpeg in (False, True))
    assert decoded.shape == (375, 500, 3)
    assert 1 < np.sqrt(np.mean((decoded.astype(float) - stored) ** 2)) < 12
    # The photographs of ImageNet's training split have about 110 kB in the mean, for about 500 x 400 pixels.
    _, data = cv2.imencode(".jpg", decoded[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert 70_000 < len(data) < 130_000


def test_they_go_through_the_loader():
    source = pickle.loads(pickle.dumps(FakeImages(10, num_classes=3, image_size=(24, 32), jpeg=True)))
    batches = train_batches(source, batch_size=5, seed=0, size=16)
    batch = next(itertools.islice(batches, 1, 2))
    batches.close()
    assert batch["image"].shape == (5, 16, 16, 3)
    np.testing.assert_array_equal(batch["label"], batch["index"] % 3)


def test_numbers_below_one():
    with pytest.raises(ValueError, match=r"image_size=\(0, 4\).*expected numbers of at least 1"):
        FakeImages(4, image_size=(0, 4))
