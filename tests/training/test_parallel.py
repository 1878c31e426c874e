"""A step on several devices is the step on one device with the whole batch; in processes of their own."""

import functools
import json

import jax
import numpy as np
import pytest
from flax import nnx
from tiny_run import Net, start, tiny_recipe
from wsol_net import Staged

from camjax.models import with_wsol
from camjax.training import SoftmaxCrossEntropy, TrainState
from camjax.training.parallel import check_batch_size, parallel_eval_step, parallel_train_step, replicate

# Of a device's images, most have one class: a weighted mean on each device would be far off the whole batch's.
WEIGHTED = SoftmaxCrossEntropy(0.1, class_weights=(1, 10, 100))

# Job -> how it trains. On two devices the first micro-batch is 0, 1 of one and 4, 5 of the other.
JOBS = {
    "plain": lambda devices: {"loss": WEIGHTED},
    "dropout": lambda devices: {"dropout": 0.5},
    "again": lambda devices: {"dropout": 0.5},
    "adl": lambda devices: {"wsol": "adl"},
    "parts": lambda devices: {
        "loss": WEIGHTED,
        "accumulate": 2,
        "order": [0, 1, 4, 5, 2, 3, 6, 7] if devices == 1 else range(8),
    },
    "unnormalized": lambda devices: {"batchnorm": False, "accumulate": 2 if devices == 2 else 1, "ema_decay": 0.5},
    **{name: lambda devices, name=name: {"wsol": name, "network": Staged} for name in ("has", "cutmix", "acol", "spg")},
    "has again": lambda devices: {"wsol": "has", "network": Staged},
    "cutmix again": lambda devices: {"wsol": "cutmix", "network": Staged},
}


@functools.cache
def compiled(recipe, loss):
    """The optimizer, and the steps of training and evaluation: a state of another optimizer would compile again."""
    return recipe.optimizer(), parallel_train_step(recipe, loss), parallel_eval_step(loss)


def train(dropout=0.0, batchnorm=True, order=range(8), loss=None, wsol="cam", network=None, **options):
    """Four steps, and an evaluation of seven images: metrics, and the arrays after them."""
    recipe = tiny_recipe(4, label_smoothing=0.1, **options)
    model = with_wsol(Net(dropout) if network is None else network(rngs=nnx.Rngs(1)), wsol)
    if not batchnorm:
        model.layer.bn = None
    optimizer, step, evaluate = compiled(recipe, loss)
    state = replicate(TrainState.create(model, recipe, optimizer=optimizer))
    rng = np.random.default_rng(0)
    history = []
    for _ in range(4):
        # The brightness differs from image to image: statistics of one device alone would be far off.
        images = np.clip(rng.integers(0, 80, (8, 8, 8, 3)) + 20 * np.arange(8)[:, None, None, None], 0, 255)
        batch = {"image": images.astype(np.uint8), "label": rng.integers(0, 3, 8).astype(np.int32)}
        batch = {name: value[np.array(order)] for name, value in batch.items()}
        state, metrics = step(state, batch)
        history.append({name: float(value) for name, value in metrics.items()})
    sums = {} if dropout else evaluate(state.evaluated, batch | {"mask": np.arange(8) < 7, "index": np.arange(8)})
    found = {"history": history, "sums": {name: float(value) for name, value in sums.items()}}
    return found, {
        "parameters": flat(state.model, nnx.Param),
        "statistics": flat(state.model, nnx.BatchStat),
        "average": flat(state.evaluated, nnx.Param),
        "step": int(state.step),
    }


def flat(model, kind) -> np.ndarray:
    leaves = jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, kind)))
    return np.concatenate([np.zeros(0), *(np.ravel(leaf) for leaf in leaves)])


def main(options: dict) -> None:
    devices = options["devices"]
    jax.config.update("jax_num_cpu_devices", devices)
    assert jax.local_device_count() == devices
    results, arrays = {}, {}
    for job in options["jobs"]:
        results[job], found = train(**JOBS[job](devices))
        arrays |= {f"{job}_{name}": array for name, array in found.items()}
    np.savez(options["out"] / "arrays.npz", **arrays)
    (options["out"] / "results.json").write_text(json.dumps(results))


@pytest.fixture(scope="module")
def on_devices(tmp_path_factory):
    """Number of devices -> results and arrays of its jobs."""
    jobs = {
        1: ("plain", "dropout", "parts", "adl"),
        2: ("parts", "unnormalized", "adl"),
        4: ("plain", "dropout", "again", "unnormalized"),
    }
    return run(tmp_path_factory, jobs)


def run(tmp_path_factory, jobs):
    """Number of devices -> names of jobs: their results and arrays, each number in a process of its own."""
    found = {}
    for devices, names in jobs.items():
        out = tmp_path_factory.mktemp("run")
        process = start({"devices": devices, "jobs": names, "out": out}, out / "log.txt", main)
        process.join()
        assert process.exitcode == 0, (out / "log.txt").read_text()
        found[devices] = json.loads((out / "results.json").read_text()), dict(np.load(out / "arrays.npz"))
    return found


def test_four_devices_take_the_steps_of_one(on_devices):
    assert_same_training(on_devices[4], on_devices[1], "plain")
    four, arrays = on_devices[4]
    assert arrays["plain_step"] == 4
    assert four["plain"]["sums"]["count"] == 7


def assert_same_training(found, expected, job):
    """To rounding: four steps' metrics, the parameters and statistics after them, and an evaluation."""
    for a, b in zip(expected[0][job]["history"], found[0][job]["history"], strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=2e-6)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=2e-5)
        assert b["accuracy"] == a["accuracy"]
    for name in (f"{job}_parameters", f"{job}_statistics", f"{job}_average"):
        largest = np.abs(expected[1][name]).max(initial=0)
        np.testing.assert_allclose(found[1][name], expected[1][name], atol=2e-6 * largest, err_msg=name)
    assert found[0][job]["sums"] == pytest.approx(expected[0][job]["sums"], rel=1e-5)


def test_two_devices_with_two_parts_take_the_steps_of_four(on_devices):
    """Without BatchNorm, whose statistics are of a part, and with averaged weights, which are what is evaluated."""
    assert_same_training(on_devices[2], on_devices[4], "unnormalized")
    arrays = on_devices[4][1]
    assert arrays["unnormalized_statistics"].size == 0
    assert np.abs(arrays["unnormalized_average"] - arrays["unnormalized_parameters"]).max() > 1e-4


def test_batchnorm_of_a_part_is_of_that_part_on_all_devices(on_devices):
    assert_same_training(on_devices[2], on_devices[1], "parts")
    whole, parts = (on_devices[1][0][job]["history"][0]["loss"] for job in ("plain", "parts"))
    assert abs(whole - parts) > 1e-4  # a part has other statistics


def test_dropout_differs_on_each_device_and_is_the_same_in_each_run(on_devices):
    one, four = on_devices[1][0], on_devices[4][0]
    losses = [result["history"][0]["loss"] for result in (one["plain"], one["dropout"], four["dropout"])]
    assert len(set(losses)) == 3
    assert four["again"]["history"] == four["dropout"]["history"]
    # The same draw in each step would leave the same half of the units out each time.
    assert len({step["loss"] for step in four["dropout"]["history"]}) == 4


def test_what_is_drawn_for_the_whole_batch_is_the_same_on_all_devices(on_devices):
    assert_same_training(on_devices[2], on_devices[1], "adl")
    histories = [on_devices[1][0][job]["history"] for job in ("plain", "adl")]
    assert histories[0] != histories[1]


@pytest.mark.long
def test_training_methods_on_one_two_and_four_devices(tmp_path_factory):
    """What draws nothing, or once for all devices, takes the steps of one; what does draws the same in each run."""
    both, repeated = ("acol", "spg", "adl", "has", "cutmix"), ("has again", "cutmix again")
    found = run(tmp_path_factory, {1: both, 2: both, 4: (*both, *repeated)})
    for devices in (2, 4):
        for name in ("acol", "spg", "adl"):
            assert_same_training(found[devices], found[1], name)
    for name in ("has", "cutmix"):
        histories = [found[devices][0][name]["history"] for devices in (1, 2, 4)]
        losses = [[step["loss"] for step in history] for history in histories]
        assert np.isfinite(losses).all() and len({*map(tuple, losses)}) == 3
        assert found[4][0][f"{name} again"]["history"] == histories[2]


def test_a_batch_that_the_devices_cannot_share():
    with pytest.raises(ValueError, match="batch_size=0: expected a positive multiple of the 1 devices that share"):
        check_batch_size(0)
    with pytest.raises(ValueError, match=r"batch_size=6: .* 1 devices times accumulate=4 micro-batches that share"):
        check_batch_size(6, accumulate=4)
    check_batch_size(8, accumulate=4)
