"""A step on several devices is the step on one device with the whole batch; in processes of their own."""

import json
import subprocess
import sys

import numpy as np
import pytest

from camjax.training.parallel import check_batch_size

SCRIPT = """
import json, sys
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

def train(dropout):
    recipe = Recipe(steps=4, batch_size=8, learning_rate=0.05, warmup_steps=2, label_smoothing=0.1)
    model = Net(dropout)
    state = replicate(TrainState(model, nnx.Optimizer(model, recipe.optimizer(), wrt=nnx.Param)))
    step, evaluate = parallel_train_step(label_smoothing=0.1), parallel_eval_step()
    rng = np.random.default_rng(0)
    history = []
    for _ in range(4):
        # Images of their own brightness: statistics of one device alone would be far off.
        images = np.clip(rng.integers(0, 80, (8, 16, 16, 3)) + 20 * np.arange(8)[:, None, None, None], 0, 255)
        batch = {"image": images.astype(np.uint8), "label": rng.integers(0, 5, 8).astype(np.int32)}
        state, metrics = step(state, batch)
        history.append({name: float(value) for name, value in metrics.items()})
    sums = evaluate(state.model, batch | {"mask": np.arange(8) < 7, "index": np.arange(8)})
    flat = lambda kind: np.concatenate(
        [np.ravel(leaf) for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(state.model, kind)))]
    )
    arrays = {"parameters": flat(nnx.Param), "statistics": flat(nnx.BatchStat), "step": int(state.step)}
    return {"history": history, "sums": {name: float(value) for name, value in sums.items()}}, arrays

assert jax.local_device_count() == devices
plain, arrays = train(0.0)
dropout, _ = train(0.5)
again, _ = train(0.5)
np.savez(out, **arrays)
print(json.dumps({"plain": plain, "dropout": dropout, "again": again}))
"""


@pytest.fixture(scope="module")
def on_devices(tmp_path_factory):
    """devices -> what SCRIPT printed there, and its arrays."""
    results = {}
    for devices in (1, 4):
        out = tmp_path_factory.mktemp("run") / "out.npz"
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(devices), str(out)], capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr
        results[devices] = json.loads(process.stdout.splitlines()[-1]), dict(np.load(out))
    return results


def test_four_devices_take_the_steps_of_one(on_devices):
    (one, arrays_of_one), (four, arrays) = on_devices[1], on_devices[4]
    for a, b in zip(one["plain"]["history"], four["plain"]["history"], strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=2e-6)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=2e-5)
        assert b["accuracy"] == a["accuracy"]
    for name in ("parameters", "statistics"):
        np.testing.assert_allclose(arrays[name], arrays_of_one[name], atol=2e-6 * np.abs(arrays_of_one[name]).max())
    assert arrays["step"] == 4
    assert four["plain"]["sums"] == pytest.approx(one["plain"]["sums"], rel=1e-5)
    assert four["plain"]["sums"]["count"] == 7


def test_dropout_differs_on_each_device_and_is_the_same_in_each_run(on_devices):
    one, four = on_devices[1][0], on_devices[4][0]
    losses = [result["history"][0]["loss"] for result in (one["plain"], one["dropout"], four["dropout"])]
    assert len(set(losses)) == 3
    assert four["again"]["history"] == four["dropout"]["history"]
    # The same draw in each step would leave the same half of the units out each time.
    assert len({step["loss"] for step in four["dropout"]["history"]}) == 4


def test_a_batch_that_the_devices_cannot_share():
    with pytest.raises(ValueError, match="batch_size=0: expected a positive multiple of the 1 devices"):
        check_batch_size(0)
