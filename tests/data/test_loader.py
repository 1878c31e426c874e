import functools
import itertools
import shutil

import numpy as np
import pytest

from camjax.data import scenes
from camjax.data.loader import eval_batches, train_batches
from camjax.data.sources import open_source
from camjax.data.transforms import random_horizontal_flip, random_translation


def numbered(count, *, boxes=False, shape=(4, 6, 3)):
    """Examples whose image and label say their number."""
    examples = []
    for i in range(count):
        example = {"image": np.full(shape, i, np.uint8), "label": i, "filename": f"{i}.png"}
        if boxes:
            example["bbox"] = np.array([0, 0, 1, i / count], np.float32)
        examples.append(example)
    return examples


def take(batches, count):
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            assert batch[key].dtype == other[key].dtype
            np.testing.assert_array_equal(batch[key], other[key])


def labels(batches):
    return np.concatenate([batch["label"] for batch in batches]).tolist()


def test_a_training_batch_is_uint8_images_and_int32_labels():
    (batch,) = take(train_batches(numbered(10), batch_size=4, seed=0), 1)
    assert set(batch) == {"image", "label"}
    assert batch["image"].shape == (4, 4, 6, 3) and batch["image"].dtype == np.uint8
    assert batch["label"].shape == (4,) and batch["label"].dtype == np.int32
    assert type(batch["image"]) is np.ndarray
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])


def test_each_epoch_has_each_example_once_in_a_new_order():
    # 10 examples in batches of 4: 5 batches are 2 epochs, the third batch belongs to both.
    order = labels(take(train_batches(numbered(10), batch_size=4, seed=0), 10))
    epochs = [order[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_seed_decides_the_order():
    def order(seed):
        return labels(take(train_batches(numbered(50), batch_size=5, seed=seed), 20))

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1)[50:] != order(2)[:50]  # not the same orders one epoch later


def augmented(source, **kwargs):
    augment = functools.partial(random_translation, max_shift=2)
    return train_batches(source, batch_size=6, seed=7, augment=augment, **kwargs)


@pytest.fixture(scope="module")
def noise():
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    return [{"image": image, "label": i} for i, image in enumerate(images)]


@pytest.mark.parametrize(("num_workers", "start_step"), [(1, 0), (2, 0), (2, 3), (3, 4)])
def test_workers_change_nothing(noise, num_workers, start_step):
    expected = take(augmented(noise), 8)[start_step:]
    assert_same(take(augmented(noise, num_workers=num_workers, start_step=start_step), 8 - start_step), expected)


@pytest.mark.parametrize("num_threads", [0, 1, 5])
def test_threads_change_nothing(noise, num_threads):
    assert_same(take(augmented(noise, num_threads=num_threads), 7), take(augmented(noise), 7))


@pytest.mark.parametrize("start_step", [0, 1, 5, 12])
def test_a_start_step_continues_the_run(noise, start_step):
    assert_same(take(augmented(noise, start_step=start_step), 3), take(augmented(noise), start_step + 3)[start_step:])


def test_a_far_start_step_is_reached_at_once(noise):
    assert len(take(augmented(noise, start_step=10**9), 1)) == 1


def rows(batch):
    return sorted((label, image.tobytes()) for label, image in zip(batch["label"], batch["image"], strict=True))


@pytest.mark.parametrize("shard_count", [2, 3])
def test_processes_share_each_global_batch(noise, shard_count):
    whole = take(augmented(noise, shard_index=0, shard_count=1), 5)
    shards = [take(augmented(noise, shard_index=i, shard_count=shard_count), 5) for i in range(shard_count)]
    for step, batch in enumerate(whole):
        parts = [shard[step] for shard in shards]
        assert [len(part["label"]) for part in parts] == [6 // shard_count] * shard_count
        assert sorted(row for part in parts for row in rows(part)) == rows(batch)


def test_augmentation_differs_between_examples_and_epochs(noise):
    same = [noise[0]] * 4
    batches = take(augmented(same), 2)  # 12 images: 3 epochs of the same image
    shifts = {image.tobytes() for batch in batches for image in batch["image"]}
    assert len(shifts) > 6


def test_translation_moves_the_image_by_up_to_max_shift():
    image = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    allowed = {padded[y : y + 9, x : x + 12].tobytes() for y in range(5) for x in range(5)}
    rng = np.random.default_rng(1)
    seen = {random_translation(image, rng, max_shift=2).tobytes() for _ in range(400)}
    assert seen == allowed


def test_flip_mirrors_half_of_the_images():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    rng = np.random.default_rng(0)
    flipped = [random_horizontal_flip(image, rng) for _ in range(200)]
    mirrored = sum(np.array_equal(result, image[:, [3, 2, 1, 0]]) for result in flipped)
    assert mirrored + sum(np.array_equal(result, image) for result in flipped) == 200
    assert 70 < mirrored < 130


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16])
@pytest.mark.parametrize("shard_count", [1, 2, 4])
def test_evaluation_sees_each_example_once_over_all_processes(count, shard_count):
    source = numbered(count, boxes=True)
    shards = [
        list(eval_batches(source, batch_size=8, shard_index=i, shard_count=shard_count)) for i in range(shard_count)
    ]
    assert {len(shard) for shard in shards} == {-(-count // 8)}
    batches = [batch for shard in shards for batch in shard]
    seen = []
    for batch in batches:
        assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
            "image": ((8 // shard_count, 4, 6, 3), "uint8"),
            "label": ((8 // shard_count,), "int32"),
            "bbox": ((8 // shard_count, 4), "float32"),
            "mask": ((8 // shard_count,), "bool"),
            "index": ((8 // shard_count,), "int32"),
        }
        mask, index = batch["mask"], batch["index"]
        seen += index[mask].tolist()
        np.testing.assert_array_equal(batch["label"][mask], index[mask])
        np.testing.assert_array_equal(batch["image"][mask][:, 0, 0, 0], index[mask])
        np.testing.assert_array_equal(batch["bbox"][mask][:, 3], (index[mask] / count).astype(np.float32))
        assert (index[~mask] == -1).all()
        assert not any(batch[key][~mask].any() for key in ("image", "label", "bbox"))
    assert sorted(seen) == list(range(count))


def test_evaluation_without_boxes_keeps_the_order_of_the_source():
    batches = list(eval_batches(numbered(10), batch_size=4))
    assert set(batches[0]) == {"image", "label", "mask", "index"}
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1]]


def test_evaluation_with_workers_is_the_same():
    source = numbered(11, boxes=True)
    assert_same(list(eval_batches(source, batch_size=4, num_workers=2)), list(eval_batches(source, batch_size=4)))


@pytest.mark.parametrize("size", [8, (8, 8)])
def test_size_brings_images_to_one_size(size):
    source = [{"image": np.full((4 + i, 6, 3), i, np.uint8), "label": i} for i in range(3)]
    (batch,) = eval_batches(source, batch_size=3, size=size)
    np.testing.assert_array_equal(batch["image"], np.repeat([0, 1, 2], 192).reshape(3, 8, 8, 3))
    (batch,) = take(train_batches(source, batch_size=3, seed=0, size=size), 1)
    assert batch["image"].shape == (3, 8, 8, 3)


def test_images_of_different_size_ask_for_a_size():
    source = [{"image": np.zeros((4 + i, 6, 3), np.uint8), "label": i} for i in range(3)]
    with pytest.raises(ValueError, match=r"example 1 is \(5, 6, 3\), that of example 0 \(4, 6, 3\).*size=\(H, W\)"):
        list(eval_batches(source, batch_size=3))
    with pytest.raises(ValueError, match=r"give size="):
        take(train_batches(source, batch_size=3, seed=0), 1)


def test_float_images_are_refused():
    source = [{"image": np.zeros((4, 6, 3), np.float32), "label": 0}]
    with pytest.raises(ValueError, match="example 0 is float32; expected uint8"):
        list(eval_batches(source, batch_size=1))


@pytest.mark.parametrize("batches", [eval_batches, functools.partial(train_batches, seed=0)])
def test_bad_arguments(batches):
    source = numbered(4)
    with pytest.raises(ValueError, match=r"batch_size is 5.*multiple of the 2 processes"):
        batches(source, batch_size=5, shard_index=0, shard_count=2)
    with pytest.raises(ValueError, match="batch_size is 0"):
        batches(source, batch_size=0)
    with pytest.raises(ValueError, match="shard_index is 2 of shard_count 2"):
        batches(source, batch_size=4, shard_index=2, shard_count=2)
    with pytest.raises(ValueError, match="empty"):
        batches([], batch_size=4)


def test_negative_seed_or_step():
    with pytest.raises(ValueError, match="seed is -1"):
        train_batches(numbered(4), batch_size=2, seed=-1)
    with pytest.raises(ValueError, match="start_step -1"):
        train_batches(numbered(4), batch_size=2, seed=0, start_step=-1)


@pytest.fixture(scope="module")
def scenes_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "NUM_SCENES", {"train": 40, "validation": 10, "test": 10})
        open_source("scenes", "train", data_dir=data_dir)
    return data_dir


def test_scenes_go_through_workers(scenes_dir):
    source = open_source("scenes", "test", data_dir=scenes_dir)
    (batch,) = eval_batches(source, batch_size=12, num_workers=1)
    assert batch["mask"].sum() == 10
    for index, image, label, box in zip(*(batch[key][:10] for key in ("index", "image", "label", "bbox")), strict=True):
        np.testing.assert_array_equal(image, source[index]["image"])
        np.testing.assert_array_equal(box, source[index]["bbox"])
        assert label == source[index]["label"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_record_is_named_through_the_loader(scenes_dir, tmp_path, num_workers):
    shutil.copytree(scenes_dir / "scenes", tmp_path / "scenes")
    shard = next((tmp_path / "scenes" / "1.0.0").glob("*test*"))
    with shard.open("r+b") as file:
        file.seek(20_000)  # behind the header and within the first records, of about 9,000 bytes each
        file.write(bytes(100))
    batches = eval_batches(open_source("scenes", "test", data_dir=tmp_path), batch_size=10, num_workers=num_workers)
    with pytest.raises(ValueError, match=r"example \d of data set 'scenes', split 'test'"):
        list(batches)
