import contextlib
import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from camjax.data.loader import eval_batches, train_batches
from camjax.data.sources import open_source
from camjax.data.transforms import compose, random_horizontal_flip, random_resized_crop, random_translation
from examples import Damaged, numbered, sizes

SOON = 300  # seconds that nothing here takes, unless it hangs


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


def test_a_training_batch_is_uint8_images_and_int32_labels_and_positions():
    source = [example | {"label": example["label"] // 2} for example in numbered(10)]
    (batch,) = take(train_batches(source, batch_size=4, seed=0), 1)
    assert set(batch) == {"image", "label", "index"}
    assert batch["image"].shape == (4, 4, 6, 3) and batch["image"].dtype == np.uint8
    for name in ("label", "index"):
        assert batch[name].shape == (4,) and batch[name].dtype == np.int32
    assert type(batch["image"]) is np.ndarray
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])
    np.testing.assert_array_equal(batch["index"] // 2, batch["label"])


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


def photographs(**kwargs):
    """Training as the recipes do it: images of many sizes, cut out at random; every fifth cannot be read."""
    augment = compose(random_resized_crop(16), random_horizontal_flip)
    options = {"batch_size": 6, "seed": 7, "size": 16, "augment": augment, "unreadable": "skip", **kwargs}
    return train_batches(Damaged(sizes(40), range(0, 40, 5)), **options)


@pytest.mark.parametrize(
    "configurations", [[(2, 3)], pytest.param([(1, 0), (3, 4)], marks=pytest.mark.long)], ids=["short", "long"]
)
def test_workers_change_nothing(configurations):
    expected = take(photographs(), 8)
    # All at once, because most of the time is the start of the processes.
    running = [photographs(num_workers=workers, start_step=step) for workers, step in configurations]
    for (_, step), batches in zip(configurations, running, strict=True):
        assert_same(take(batches, 8 - step), expected[step:])
    assert len({image.tobytes() for batch in expected for image in batch["image"]}) == 48
    assert any((batch["skipped"] >= 0).any() for batch in expected)


@pytest.mark.parametrize("num_threads", [0, 5])
def test_threads_change_nothing(noise, num_threads):
    assert_same(take(augmented(noise, num_threads=num_threads), 7), take(augmented(noise), 7))


@pytest.mark.parametrize("start_step", [1, 12])
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


def test_an_unreadable_example_is_an_error():
    with pytest.raises(ValueError, match="example 3 is damaged"):
        take(train_batches(Damaged(numbered(10), {3}), batch_size=10, seed=0), 1)


@pytest.mark.parametrize("bad", [set(range(0, 60, 7)), set(range(10, 60))])
def test_the_next_in_the_order_takes_the_place_of_an_unreadable_example(bad):
    order = labels(take(train_batches(numbered(60), batch_size=60, seed=0), 4))
    expected = [next(i for i in order[place:] if i not in bad) for place in range(120)]
    source = Damaged(numbered(60), bad)
    batches = take(train_batches(source, batch_size=8, seed=0, size=(4, 6), unreadable="skip"), 15)
    index, skipped = (np.concatenate([batch[name] for batch in batches]) for name in ("index", "skipped"))
    assert index.tolist() == labels(batches) == expected
    assert skipped.dtype == np.int32
    assert skipped.tolist() == [i if i in bad else -1 for i in order[:120]]
    for epoch in (skipped[:60], skipped[60:]):  # each exactly once
        assert sorted(epoch[epoch >= 0]) == sorted(bad)


def test_skipping_leaves_the_other_rows_alone(noise):
    batches = take(augmented(noise), 8)
    skipping = take(augmented(Damaged(noise, {2, 5}), size=8, unreadable="skip"), 8)
    replaced = 0
    for batch, other in zip(batches, skipping, strict=True):
        own = other["skipped"] < 0
        replaced += (~own).sum()
        for name in ("image", "label", "index"):
            np.testing.assert_array_equal(batch[name][own], other[name][own])
    assert replaced > 6


def test_processes_skip_the_same(noise):
    source = Damaged(noise, {2, 3, 5})
    (whole,) = take(augmented(source, size=8, unreadable="skip"), 1)
    parts = [
        take(augmented(source, size=8, unreadable="skip", shard_index=i, shard_count=2, start_step=0), 1)[0]
        for i in (0, 1)
    ]
    for name, rows_of_whole in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), rows_of_whole)


def test_nothing_but_unreadable_examples_is_an_error():
    source = Damaged(numbered(150), range(150))
    batches = train_batches(source, batch_size=2, seed=0, size=4, unreadable="skip")
    with pytest.raises(ValueError, match="100 examples in a row cannot be read") as raised:
        take(batches, 1)
    assert "is damaged" in str(raised.value.__cause__)


def test_an_augmented_image_of_the_right_size_is_not_resized():
    source = [{"image": np.zeros((50, 70, 3), np.uint8), "label": 0}]
    made = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    (batch,) = take(train_batches(source, batch_size=1, seed=0, size=(8, 9), augment=lambda image, rng: made), 1)
    np.testing.assert_array_equal(batch["image"][0], made)


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


@pytest.mark.parametrize("start_batch", [0, 2, 3])
def test_evaluation_starts_at_a_batch(start_batch):
    source = numbered(10, boxes=True)
    whole = list(eval_batches(source, batch_size=4))
    assert_same(list(eval_batches(source, batch_size=4, start_batch=start_batch)), whole[start_batch:])
    shards = [eval_batches(source, batch_size=4, start_batch=1, shard_index=i, shard_count=2) for i in (0, 1)]
    assert [[batch["index"].tolist() for batch in shard] for shard in shards] == [[[4, 5], [8, 9]], [[6, 7], [-1, -1]]]


def test_evaluation_says_how_large_an_image_is_and_that_all_of_it_is_seen():
    source = sizes(5)
    (batch,) = eval_batches(source, batch_size=6, size=8)
    assert set(batch) == {"image", "label", "mask", "index", "image_size", "view"}
    assert batch["image_size"].dtype == np.int32 and batch["view"].dtype == np.float32
    assert batch["image_size"].tolist() == [list(example["image"].shape[:2]) for example in source] + [[0, 0]]
    assert batch["view"].tolist() == [[0, 0, 1, 1]] * 5 + [[0, 0, 0, 0]]


def test_evaluation_on_the_center():
    wide = np.random.default_rng(0).integers(0, 256, (10, 30, 3), np.uint8)
    tall = np.random.default_rng(1).integers(0, 256, (40, 20, 3), np.uint8)
    source = [{"image": image, "label": 0} for image in (wide, tall)]
    (batch,) = eval_batches(source, batch_size=2, size=(10, 10), crop="center")
    assert batch["image_size"].tolist() == [[10, 30], [40, 20]]
    np.testing.assert_allclose(batch["view"], [[0, 1 / 3, 1, 2 / 3], [1 / 4, 0, 3 / 4, 1]], rtol=1e-6)
    np.testing.assert_array_equal(batch["image"][0], wide[:, 10:20])  # of the right size: not resampled
    two_by_two = tall[10:30].reshape(10, 2, 10, 2, 3).mean((1, 3))
    inside = np.s_[1:-1, 1:-1]  # the filter, a triangle of 4 pixels, sees beyond them
    assert abs(batch["image"][1][inside] - two_by_two[inside]).mean() < 40


def test_an_unreadable_example_is_marked():
    bad = Damaged(numbered(7, boxes=True), {0, 4})
    with pytest.raises(ValueError, match="example 0 is damaged"):
        list(eval_batches(bad, batch_size=4, size=8))
    batches = list(eval_batches(bad, batch_size=4, size=8, unreadable="mark"))
    good = list(eval_batches(numbered(7, boxes=True), batch_size=4, size=8))
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, -1]]
    assert [batch["mask"].tolist() for batch in batches] == [[False, True, True, True], [False, True, True, False]]
    for batch, expected in zip(batches, good, strict=True):
        assert batch.keys() == expected.keys()
        for name in batch:
            assert batch[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(batch[name][batch["mask"]], expected[name][batch["mask"]])
            if name != "index":
                assert not batch[name][~batch["mask"]].any()


def test_what_cannot_be_skipped_or_marked():
    with pytest.raises(ValueError, match="'skip' without size"):
        train_batches(numbered(4), batch_size=2, seed=0, unreadable="skip")
    with pytest.raises(ValueError, match="'mark' without size"):
        eval_batches(numbered(4), batch_size=2, unreadable="mark")
    with pytest.raises(ValueError, match=r"'center'.*without size"):
        eval_batches(numbered(4), batch_size=2, crop="center")
    with pytest.raises(ValueError, match="none of the 4 examples"):
        eval_batches(Damaged(numbered(4), range(4)), batch_size=2, size=8, unreadable="mark")


@pytest.mark.parametrize(
    ("batches", "other"), [(eval_batches, "skip"), (functools.partial(train_batches, seed=0), "mark")]
)
def test_unknown_choices(batches, other):
    with pytest.raises(ValueError, match=f"unreadable is '{other}'; expected \"raise\" or"):
        batches(numbered(4), batch_size=2, size=8, unreadable=other)


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
    with pytest.raises(ValueError, match="start_batch is -1"):
        eval_batches(numbered(4), batch_size=2, start_batch=-1)
    with pytest.raises(ValueError, match="crop is 'middle'"):
        eval_batches(numbered(4), batch_size=2, size=8, crop="middle")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_examples_and_a_damaged_record_of_tfds_through_the_loader(scenes_dir, tmp_path, num_workers):
    shutil.copytree(scenes_dir / "scenes", tmp_path / "scenes")
    shard = next((tmp_path / "scenes" / "1.0.0").glob("*test*"))
    with shard.open("r+b") as file:
        file.seek(20_000)  # after the header and within the first records, of about 9,000 bytes each
        file.write(bytes(100))
    batches = eval_batches(open_source("scenes", "test", data_dir=tmp_path), batch_size=1, num_workers=num_workers)
    good, source = [], open_source("scenes", "test", data_dir=scenes_dir)
    with pytest.raises(ValueError, match=rf"example \d of data set 'scenes', split 'test' \(.*{shard.name}\)"):
        good.extend(batches)  # extend keeps those before the error
    assert len(good) >= 1
    for index, batch in enumerate(good):
        assert batch["index"].tolist() == [index] and batch["mask"].tolist() == [True]
        np.testing.assert_array_equal(batch["image"][0], source[index]["image"])
        np.testing.assert_array_equal(batch["bbox"][0], source[index]["bbox"])
        assert batch["label"].tolist() == [source[index]["label"]]


WITH_WORKERS = """
import itertools, multiprocessing, os, signal, sys, threading, time

import numpy as np

from camjax.data.loader import train_batches
from camjax.data.prefetching import prefetch


def batches():
    source = [{"image": np.full((8, 8, 3), i, np.uint8), "label": i} for i in range(12)]
    return train_batches(source, batch_size=4, seed=0, num_workers=1)
"""

ENDS = """
caught = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: caught.append(number))

closed = batches() if "closed" in sys.argv else None
dropped = prefetch(batches(), lambda batch: batch["label"].tolist())
running = threading.Event()


def signals():
    while not running.wait(0.2):
        os.killpg(0, signal.SIGINT)
        os.killpg(0, signal.SIGTERM)


threading.Thread(target=signals).start()
labels = [next(dropped) for _ in range(4)]
if closed is not None:
    assert labels == [batch["label"].tolist() for batch in itertools.islice(closed, 4)]
    closed.close()
running.set()
assert set(caught) == {signal.SIGINT, signal.SIGTERM}
print("done", flush=True)
sys.exit(3)
"""

DIES = """
class Fails:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        if multiprocessing.parent_process():
            raise Unkind("no", "cable")
        return {"image": np.zeros((8, 8, 3), np.uint8), "label": 0}


class Unkind(ConnectionError):
    def __init__(self, what, of):  # so that it cannot be unpickled
        super().__init__(f"{what} {of}")


shared = set(os.listdir("/dev/shm"))
stopped = prefetch(batches(), lambda batch: batch)
(hanging,) = multiprocessing.active_children()
killed = batches()
(victim,) = {*multiprocessing.active_children()} - {hanging}
failing = train_batches(Fails(), batch_size=1, seed=0, num_workers=1)

next(stopped)
os.kill(hanging.pid, signal.SIGSTOP)
began = time.monotonic()
stopped.close()
assert time.monotonic() - began < 5 and list(stopped) == []

next(killed)
os.kill(victim.pid, signal.SIGKILL)
try:
    list(killed)
except ChildProcessError as error:
    print(str(error).replace(str(victim.pid), "PID"))
assert list(killed) == []

try:
    list(failing)
except Exception as error:
    print(type(error).__name__, error, "__getitem__" in error.__notes__[0])
assert multiprocessing.active_children() == []
# What it leaves there stays; what other processes have there at the moment does not.
deadline = time.monotonic() + 60
while set(os.listdir("/dev/shm")) - shared and time.monotonic() < deadline:
    time.sleep(0.1)
assert set(os.listdir("/dev/shm")) <= shared
"""

KILLED = """
running = batches()
next(running)
print("running", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("also", [(), pytest.param(("closed",), marks=pytest.mark.long)])
def test_a_worker_that_is_stopped_killed_or_fails_and_a_run_that_ends_without_a_word(also):
    process = started(WITH_WORKERS + DIES + ENDS, *also)
    try:
        # Until all of its processes have closed the pipes: the tracker of leaked memory ends, and speaks, last.
        out, err = process.communicate(timeout=SOON)
    finally:
        end_group(process)
    assert (process.returncode, err) == (3, "")
    assert out == (
        "An input worker (process PID) was killed by SIGKILL. The system sends SIGKILL when memory runs out: then use "
        "fewer workers (num_workers), or smaller batches.\n"
        "RuntimeError Unkind: no cable True\n"
        "done\n"
    )


@pytest.mark.long
def test_workers_end_with_a_process_that_is_killed():
    process = started(WITH_WORKERS + KILLED)
    try:
        assert process.stdout.readline() == "running\n"
        process.kill()
        process.communicate(timeout=SOON)  # until the worker has closed the pipes
    finally:
        end_group(process)


def started(code, *words):
    """A process of its own group, with pipes."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *words], **pipes, start_new_session=True)


def end_group(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
