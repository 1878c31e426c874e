"""Checkpoints: which stay, which count as whole, and what comes back."""

import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from tiny_run import Net, tiny_recipe

from camjax.checkpoints import checkpoint_bytes
from camjax.training import Checkpoints, TrainState

RECIPE = tiny_recipe(10)
AVERAGED = tiny_recipe(10, ema_decay=0.9)


def state_of(step, recipe=RECIPE):
    state = TrainState.create(Net(), recipe)
    state.optimizer.step[...] = np.uint32(step)
    state.model.head.bias[...] = np.full(3, step, np.float32)
    if state.ema is not None:
        state.ema.head.bias[...] = np.full(3, -step, np.float32)
    return state


def bias(model):
    return float(model.head.bias[...][0])


def test_the_newest_two_and_the_best_stay(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step, accuracy in enumerate((0.2, 0.7, 0.3, 0.4, 0.5), 1):
            checkpoints.save(state_of(step), {"loss": 1.0, "accuracy": accuracy})
        checkpoints.wait()
        assert checkpoints.steps() == [2, 4, 5]
        assert bias(checkpoints.restore(state_of(0), 2).model) == 2


def test_half_a_checkpoint_is_none(tmp_path):
    """What a killed process leaves has another name; it is not seen, and goes before the next is written."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_of(3))
    half = tmp_path / "4.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "3", half)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [3]
    assert half.exists()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [3]
        checkpoints.save(state_of(4))
        checkpoints.wait()
        assert not half.exists()
        assert bias(checkpoints.restore(state_of(0)).model) == 4


def test_a_damaged_checkpoint_is_an_error_and_the_one_before_restores(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state_of(step))
    files = [path for path in (tmp_path / "2" / "model").rglob("*") if path.is_file() and path.stat().st_size > 100]
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=r"2 does not fit: .* or damaged.*delete this folder"):
            checkpoints.restore(state_of(0))
        shutil.rmtree(tmp_path / "2")
    with Checkpoints(tmp_path) as checkpoints:
        assert bias(checkpoints.restore(state_of(0)).model) == 1


def test_averaged_weights_come_back_and_are_the_model(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_of(3, AVERAGED))
        checkpoints.wait()
        state = checkpoints.restore(state_of(0, AVERAGED))
        assert (bias(state.model), bias(state.ema), bias(checkpoints.restore_model(Net()))) == (3, -3, -3)
        assert checkpoints.restore(state_of(0)).ema is None


def test_an_average_may_start_from_a_checkpoint_without_one(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_of(3))
        checkpoints.wait()
        state = checkpoints.restore(state_of(0, AVERAGED))
        assert (bias(state.model), bias(state.ema), bias(checkpoints.restore_model(Net()))) == (3, 3, 3)


def test_the_size_of_a_checkpoint():
    state = state_of(0, AVERAGED)
    model = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(state.model, (nnx.Param, nnx.BatchStat))))
    # Model, average and momentum; and keys and counts of a few bytes.
    assert 2 * model < checkpoint_bytes(state) < 3 * model + 100
    assert checkpoint_bytes(jax.eval_shape(lambda: state)) == checkpoint_bytes(state)
