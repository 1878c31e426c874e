"""Training on batches from elsewhere: the same as on a source with the same examples."""

import dataclasses
import itertools
import json
import threading

import jax
import numpy as np
import pytest
from flax import nnx
from tiny_run import Colors, Net, start, tiny_recipe

from camjax.data import Batches
from camjax.data import batches as module
from camjax.data.loader import batch_indices
from camjax.data.prefetching import prefetch
from camjax.errors import InputError
from camjax.runs import read_run
from camjax.training import SigmoidBinaryCrossEntropy, describe_plan, evaluate, fit
from camjax.training.logs import read_metrics
from tests.processes import join, together

STEPS, SIZE = 10, 8


class Loader:
    """Iterable again and again, of no length, as loaders are: rows of `Colors`, in batches of any form.

    Args:
      indices: of the examples of one pass.
      of: rows in a batch; the last has fewer.
      form: of a batch.
      breaks_after: the number of batches after which it fails.
    """

    def __init__(self, indices, of=7, form=lambda image, label: (image, label), breaks_after=None):
        self.indices, self.of, self.form, self.breaks_after = indices, of, form, breaks_after
        self.given = 0

    def __iter__(self):
        for first in range(0, len(self.indices), self.of):
            if self.given == self.breaks_after:
                raise OSError("the disk is gone")
            self.given += 1
            examples = [Colors()[i] for i in self.indices[first : first + self.of]]
            image, label = np.stack([e["image"] for e in examples]), np.array([e["label"] for e in examples])
            yield self.form(image, label)
            image[...] = label[...] = 0  # as if the memory were used again


ORDER = [int(i) for step in range(STEPS) for i in batch_indices(40, batch_size=SIZE, seed=0, step=step)]
"""What training on `Colors` reads."""


def leaves(model):
    return [
        np.asarray(leaf) for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    ]


def assert_same_bits(a, b):
    for one, other in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def of_source():
    return fit(Net(), Colors(), tiny_recipe(STEPS), progress=False)


@pytest.mark.parametrize(
    ("of", "form"),
    [
        (7, lambda image, label: (image, label)),
        (80, lambda image, label: [image.transpose(0, 3, 1, 2), label.tolist()]),
        (3, lambda image, label: {"image": image.astype(int), "label": label.astype(np.uint8), "name": "x"}),
    ],
)
def test_batches_of_any_size_and_form_train_the_same(of_source, of, form):
    assert_same_bits(fit(Net(), Loader(ORDER, of, form), tiny_recipe(STEPS), progress=False), of_source)


def test_a_generator_is_passed_through_once(of_source):
    assert_same_bits(fit(Net(), iter(Loader(ORDER)), tiny_recipe(STEPS), progress=False), of_source)
    with pytest.raises(InputError, match=r"batches of generator gave 80 rows, and none when iterated again"):
        fit(Net(), iter(Loader(ORDER)), tiny_recipe(STEPS + 1), progress=False)


def test_floats_in_0_to_255_are_as_good():
    loader = Loader(ORDER[:16], 8, lambda image, label: (image.astype(np.float64), label))
    expected = fit(Net(), Colors(), tiny_recipe(2), progress=False)
    for a, b in zip(leaves(fit(Net(), loader, tiny_recipe(2), progress=False)), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("of", [7, 16])
def test_evaluation_counts_each_row_once(of_source, of):
    """40 rows: the last batch is padded."""
    expected = evaluate(of_source, Colors(), batch_size=16)
    assert evaluate(of_source, Loader(range(40), of), batch_size=16) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(InputError, match="batches of generator gave nothing to evaluate"):
        evaluate(of_source, iter(Loader([])), batch_size=16)


def training(batches, start_step=0, count=4):
    reader = batches.for_training(8, start_step=start_step, size=(8, 8), label_shape=())
    return np.concatenate([batch["image"] for batch in itertools.islice(reader, count)])


def test_a_position_is_found_again_by_passing_over_rows():
    """18 rows a pass, in batches of 5, 5, 5, 3."""
    images = np.stack([Colors()[i % 18]["image"] for i in range(64)])
    np.testing.assert_array_equal(training(Batches(Loader(range(18), 5)), count=8), images)
    for step in (1, 2, 5):
        with pytest.warns(UserWarning, match=rf"step {step}; .* the {8 * step} rows seen so far are read"):
            found = training(Batches(Loader(range(18), 5)), step, 3)
        np.testing.assert_array_equal(found, images[8 * step : 8 * step + 24])
    with pytest.warns(UserWarning, match="goes on from step 5.* it begins with new ones"):
        found = training(Batches(Loader(range(18), 5), resume="restart"), 5)
    np.testing.assert_array_equal(found, images[:32])


def test_a_run_that_broke_off_ends_as_one_that_did_not(of_source, tmp_path):
    options = {"eval_source": Loader(range(40)), "run_dir": tmp_path, "checkpoint_every": 4, "progress": False}
    with pytest.raises(OSError, match="the disk is gone"):
        fit(Net(), Loader(ORDER, breaks_after=7), tiny_recipe(STEPS), **options)
    assert read_run(tmp_path)["data"] == {"name": "batches of Loader", "split": None, "examples": None}
    with pytest.warns(UserWarning, match="a position in these cannot be restored"):
        resumed = fit(Net(), Loader(ORDER), tiny_recipe(STEPS), **options)
    assert_same_bits(resumed, of_source)
    again = Loader(ORDER)
    fit(Net(), again, tiny_recipe(STEPS), **options)
    assert again.given == 0  # a finished run reads nothing
    longer = tiny_recipe(STEPS + 2, warmup_steps=3)
    with pytest.warns(UserWarning) as said:
        fit(Net(), again, longer, **options)
    assert ["lengthened from 10 to 12 steps" in str(w.message) for w in said] == [True, False]
    # 80 rows, of which all are passed over, and from the start what two steps and those ahead of them read.
    assert 12 + 3 <= again.given <= 12 + 8
    run, lines = read_run(tmp_path), (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert run["lengthened"] == [[10, 12]] and run["recipe"] == dataclasses.asdict(longer)
    assert [json.loads(line)["step"] for line in lines if "eval/loss" in line] == [10, 12]
    with pytest.raises(InputError, match=r"data.name: batches of Loader there, None now"):
        fit(Net(), Colors(), longer, **options)


def test_passing_over_ends_when_the_run_does():
    """A signal comes while a run that goes on reads what it has seen."""
    started = threading.Event()

    class Endless(Loader):
        def __iter__(self):
            while True:
                started.set()
                yield np.zeros((8, 8, 8, 3), np.uint8), np.zeros(8, int)

    with pytest.warns(UserWarning, match="are read and passed over"):
        reader = Batches(Endless([])).for_training(8, start_step=10**9, size=(8, 8), label_shape=())
    with prefetch(reader, lambda batch: batch):
        assert started.wait(10)


def test_each_process_gives_its_share(monkeypatch):
    """As the first of two processes sees it, of which the other one has more to evaluate."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    batches = Batches(Loader(range(10), 5))
    assert training(batches, count=2).shape[0] == 8  # half of two batches of 8
    others = iter([True] * 4 + [False])
    monkeypatch.setattr(module, "_in_any_process", lambda here: next(others))
    found = list(batches.for_evaluation(8, size=(8, 8), label_shape=()))
    assert [batch["mask"].sum() for batch in found] == [4, 4, 2, 0]
    assert {batch["image"].shape for batch in found} == {(4, 8, 8, 3)}
    np.testing.assert_array_equal(np.concatenate([b["label"][b["mask"]] for b in found]), np.arange(10) % 3)


def test_a_plan_of_batches_and_several_classes():
    plan = describe_plan(Net(), tiny_recipe(10), Loader(ORDER), loss=SigmoidBinaryCrossEntropy())
    assert plan.batch_bytes == 8 * (8 * 8 * 3 + 3 * 4)
    assert plan.examples is plan.epochs is None and "10 steps of 8 images\n" in str(plan)


IMAGES, LABELS = np.full((8, 8, 8, 3), 7, np.uint8), np.arange(8) % 3


class NoArray:
    """A tensor on a GPU."""

    def __array__(self, *args, **options):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __len__(self):
        return 8


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (IMAGES, r"a batch is ndarray; expected a dict with image and label, or a pair"),
        ((IMAGES, LABELS, LABELS), "a batch is tuple of 3; expected"),
        ({"pixel_values": IMAGES, "labels": LABELS}, "a batch is a dict of pixel_values, labels; expected"),
        ((IMAGES[:, :4], LABELS), r"images are \(8, 4, 8, 3\) uint8; expected \(b, 8, 8, 3\) or \(b, 3, 8, 8\)"),
        ((IMAGES[..., 0], LABELS), r"images are \(8, 8, 8\) uint8; expected"),
        ((IMAGES / 255, LABELS), r"from 0.02745 to 0.02745; expected RGB in 0..255. Multiply them by 255"),
        ((IMAGES / -1.0, LABELS), r"from -7 to -7; expected RGB in 0..255. The model normalizes by itself"),
        ((IMAGES * np.nan, LABELS), "from nan to nan"),
        ((IMAGES > 3, LABELS), r"images are \(8, 8, 8, 3\) bool; expected RGB in 0..255, as uint8 or float"),
        ((IMAGES, LABELS[:5]), "8 images and 5 labels"),
        ((IMAGES, LABELS / 2), r"labels are \(8,\) float64; expected \(b,\) whole numbers"),
        ((IMAGES, np.eye(3)[LABELS]), r"labels are \(8, 3\).*SigmoidBinaryCrossEntropy"),
        ((IMAGES, LABELS + 2**40), r"labels are \(8,\) int64; expected"),
        ((IMAGES, LABELS + 1), "row 2 of a batch has the label 3: the model has 3 classes"),
        ((IMAGES, list("aabbccaa")), r"labels are \(8,\) <U1; expected"),
        ((IMAGES, 3), "the label is int; expected an array of numbers"),
        (
            (NoArray(), LABELS),
            "the image is NoArray, of which NumPy makes no array .can't convert cuda:0.*from the CPU",
        ),
    ],
)
def test_batches_that_cannot_be_trained_on(batch, message):
    with pytest.raises(InputError, match=message):
        fit(Net(), Batches([batch]), tiny_recipe(2), progress=False)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Loader(ORDER), {"num_workers": 2}, "num_workers=2: batches are read by what they come from"),
        (
            Loader(ORDER),
            {"augment": lambda image, rng: image},
            "augment=.* with batches of Loader: change images where",
        ),
        (7, {}, "batches is int; expected an iterable"),
        (list(Loader(ORDER)), {}, r"example \d+ is tuple; .* Of a PyTorch Dataset give a DataLoader"),
        ([{"image": IMAGES, "label": LABELS}], {}, r"example 0 is \(8, 8, 8, 3\); .*camjax.data.Batches\(list\)"),
        (iter([]), {}, "gave 0 rows, and none when iterated again"),
    ],
)
def test_what_is_no_source(source, options, message):
    with pytest.raises(InputError, match=message):
        fit(Net(), source, tiny_recipe(2), **options, progress=False)


def run_of_shares(options):
    """A run in a process of its own: even examples in one and odd ones in the other, or both in turn in one process."""
    join(options)
    shares = [range(process, 40, 2) for process in range(2)]
    both = [i for start in range(0, 20, 4) for share in shares for i in share[start : start + 4]]
    # To evaluate, one has 31 examples and the other 9.
    uneven = [range(31), range(31, 40)]
    process = options["joined"][-1] if "joined" in options else None

    def form(image, label):
        return image, np.eye(3)[label]

    fit(
        Net(0.0),
        Loader(both if process is None else shares[process], 3, form),
        tiny_recipe(12),
        loss=SigmoidBinaryCrossEntropy(),
        eval_source=Loader(range(40) if process is None else uneven[process], 7, form),
        eval_every=5,
        run_dir=options["run_dir"],
        progress=False,
    )


@pytest.mark.long
def test_two_processes_with_a_share_each_train_as_one(tmp_path):
    jobs = [{"run_dir": str(tmp_path / "one")}, *together(2, run_dir=str(tmp_path / "two"))]
    processes = [start(job, tmp_path / "log.txt", run_of_shares) for job in jobs]
    for process in processes:
        process.join(150)
        assert process.exitcode == 0, (tmp_path / "log.txt").read_text()
    found, expected = (read_metrics(tmp_path / name) for name in ("two", "one"))
    for a, b in zip(found, expected, strict=True):
        speed = "train/images_per_second"
        assert a | {speed: 0} == pytest.approx(b | {speed: 0}, rel=1e-5)
    assert [line["step"] for line in found if "eval/mean_average_precision" in line] == [5, 10, 12]
