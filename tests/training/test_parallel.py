"""A step on several devices is the step on one device with the whole batch; in processes of their own."""

import json
import subprocess
import sys

import numpy as np
import pytest

from camjax.training.parallel import check_batch_size

SCRIPT = """
import functools, json, sys
import jax
devices, out = int(sys.argv[1]), sys.argv[2]
jax.config.update("jax_num_cpu_devices", devices)
import numpy as np
from flax import nnx
from camjax.models import CamModel, ConvBN, PooledHead
from camjax.training import Recipe, TrainState
from camjax.training.parallel import parallel_eval_step, parallel_train_step, replicate

class Net(CamModel):
    def __init__(self, dropout):
        super().__init__(input_size=(16, 16), stride=4, mean=(127.5,) * 3, std=(127.5,) * 3)
        self.layers = nnx.List([ConvBN(3, 8, 3, 2, rngs=nnx.Rngs(1)), ConvBN(8, 16, 3, 2, rngs=nnx.Rngs(2))])
        self.head = PooledHead(16, 5, dropout=dropout, rngs=nnx.Rngs(3))

    def backbone(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

evaluate = parallel_eval_step()

@functools.cache
def compiled(recipe):
    return recipe.optimizer(), parallel_train_step(recipe)

def train(dropout=0.0, batchnorm=True, order=range(8), **options):
    recipe = Recipe(steps=4, batch_size=8, learning_rate=0.05, warmup_steps=2, label_smoothing=0.1, **options)
    model = Net(dropout)
    if not batchnorm:
        for layer in model.layers:
            layer.bn = None
    optimizer, step = compiled(recipe)
    state = replicate(TrainState.create(model, recipe, optimizer=optimizer))
    rng = np.random.default_rng(0)
    history = []
    for _ in range(4):
        # Images of their own brightness: statistics of one device alone would be far off.
        images = np.clip(rng.integers(0, 80, (8, 16, 16, 3)) + 20 * np.arange(8)[:, None, None, None], 0, 255)
        batch = {"image": images.astype(np.uint8), "label": rng.integers(0, 5, 8).astype(np.int32)}
        batch = {name: value[np.array(order)] for name, value in batch.items()}
        state, metrics = step(state, batch)
        history.append({name: float(value) for name, value in metrics.items()})
    sums = evaluate(state.evaluated, batch | {"mask": np.arange(8) < 7, "index": np.arange(8)})
    flat = lambda model, kind: np.concatenate(
        [np.zeros(0), *(np.ravel(leaf) for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, kind))))]
    )
    arrays = {"parameters": flat(state.model, nnx.Param), "statistics": flat(state.model, nnx.BatchStat)}
    arrays |= {"average": flat(state.evaluated, nnx.Param), "step": int(state.step)}
    return {"history": history, "sums": {name: float(value) for name, value in sums.items()}}, arrays

assert jax.local_device_count() == devices
JOBS = {
    "plain": {},
    "dropout": {"dropout": 0.5},
    "again": {"dropout": 0.5},
    # On two devices the first micro-batch is 0, 1 of one and 4, 5 of the other.
    "parts": {"accumulate": 2, "order": [0, 1, 4, 5, 2, 3, 6, 7] if devices == 1 else range(8)},
    "unnormalized": {"batchnorm": False, "accumulate": 2 if devices == 2 else 1, "ema_decay": 0.5},
}
results, arrays = {}, {}
for job in sys.argv[3:]:
    results[job], found = train(**JOBS[job])
    arrays |= {f"{job}_{name}": array for name, array in found.items()}
np.savez(out, **arrays)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def on_devices(tmp_path_factory):
    """devices -> what SCRIPT printed there, and its arrays."""
    results = {}
    jobs = {
        1: ("plain", "dropout", "parts"),
        2: ("parts", "unnormalized"),
        4: ("plain", "dropout", "again", "unnormalized"),
    }
    for devices, names in jobs.items():
        out = tmp_path_factory.mktemp("run") / "out.npz"
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(devices), str(out), *names], capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr
        results[devices] = json.loads(process.stdout.splitlines()[-1]), dict(np.load(out))
    return results


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
    assert abs(whole - parts) > 1e-4  # the statistics of a part are others


def test_dropout_differs_on_each_device_and_is_the_same_in_each_run(on_devices):
    one, four = on_devices[1][0], on_devices[4][0]
    losses = [result["history"][0]["loss"] for result in (one["plain"], one["dropout"], four["dropout"])]
    assert len(set(losses)) == 3
    assert four["again"]["history"] == four["dropout"]["history"]
    # The same draw in each step would leave the same half of the units out each time.
    assert len({step["loss"] for step in four["dropout"]["history"]}) == 4


def test_a_batch_that_the_devices_cannot_share():
    with pytest.raises(ValueError, match="batch_size=0: expected a positive multiple of the 1 devices that share"):
        check_batch_size(0)
    with pytest.raises(ValueError, match=r"batch_size=6: .* 1 devices times accumulate=4 micro-batches that share"):
        check_batch_size(6, accumulate=4)
    check_batch_size(8, accumulate=4)
