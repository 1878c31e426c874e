"""Checkpoints: which stay, which count as whole, and what comes back."""

import random
import shutil
import warnings

import jax
import numpy as np
import pytest
from flax import nnx
from tiny_run import Net, tiny_recipe

import camjax
from camjax.checkpoints import _to_tree, checkpoint_bytes
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
    with Checkpoints(tmp_path) as checkpoints:  # of another process
        assert checkpoints.has_metrics(2)
        checkpoints.save(state_of(6))
        checkpoints.wait()
        assert checkpoints.steps() == [2, 5, 6] and not checkpoints.has_metrics(6)


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


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two checkpoints of a run, of steps 1 and 2."""
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(directory) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state_of(step))
    return directory


def files_of(checkpoint):
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.stat().st_size > 0)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "missing": lambda path: path.unlink(),
    "changed": flip_a_bit,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_restores(two, tmp_path, damage):
    directory = tmp_path / "checkpoints"
    shutil.copytree(two, directory)
    for path in files_of(directory / "2" / "model"):
        DAMAGES[damage](path)
    with Checkpoints(directory) as checkpoints:
        with pytest.raises(ValueError, match=rf"{directory}/2 "):
            checkpoints.restore(state_of(0), 2)
        with pytest.warns(UserWarning, match=rf"{directory}/2 .*The checkpoint of step 1 is used in its place"):
            assert bias(checkpoints.restore(state_of(0)).model) == 1
        assert checkpoints.set_aside(1) == [tmp_path / "checkpoints.damaged-2"]
        assert checkpoints.steps() == [1]
        checkpoints.save(state_of(2))
    with Checkpoints(directory, read_only=True) as checkpoints:
        assert bias(checkpoints.restore_model(Net())) == 2
    assert (tmp_path / "checkpoints.damaged-2" / "model").is_dir()


def equal(a, b):
    pairs = zip(jax.tree.leaves(_to_tree(a)), jax.tree.leaves(_to_tree(b)), strict=True)
    return all(x.tobytes() == y.tobytes() for x, y in pairs)


def flipped_bits_in(directory, two, random, count):
    """Flips single bits; every time the arrays are those saved, or the checkpoint counts as damaged."""
    found = {"same": 0, "damaged": 0}
    for _ in range(count):
        path = random.choice(files_of(directory / "2"))
        content = path.read_bytes()
        changed = bytearray(content)
        changed[random.randrange(len(content))] ^= 1 << random.randrange(8)
        path.write_bytes(changed)
        with Checkpoints(directory, read_only=True) as checkpoints, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state = checkpoints.restore(state_of(0))
        step = 1 if any("is used in its place" in str(warning.message) for warning in caught) else 2
        assert equal(state.model, state_of(step).model) and int(state.step) == step
        found["damaged" if step == 1 else "same"] += 1
        path.write_bytes(content)
    return found


def test_no_flipped_bit_becomes_another_weight(two, tmp_path):
    shutil.copytree(two, tmp_path / "c")
    assert flipped_bits_in(tmp_path / "c", two, random.Random(0), 12)["damaged"] > 0


@pytest.mark.long
def test_no_flipped_bit_becomes_another_weight_many(two, tmp_path):
    shutil.copytree(two, tmp_path / "c")
    assert flipped_bits_in(tmp_path / "c", two, random.Random(1), 1200)["damaged"] > 100


def test_checkpoints_of_an_older_version_have_no_checksums(two, tmp_path):
    directory = tmp_path / "checkpoints"
    shutil.copytree(two, directory)
    shutil.rmtree(directory / "2" / "sha256")
    with Checkpoints(directory) as checkpoints:
        assert bias(checkpoints.restore(state_of(0)).model) == 2


def test_a_checkpoint_of_another_model_is_told_before_anything_is_allocated(two):
    with Checkpoints(two, read_only=True) as checkpoints:
        huge = camjax.models.shapes.model_shapes("small_gap", 10**9)
        with pytest.raises(ValueError, match=r"does not fit: its model is of another model .*head\.kernel is \(8, 3\)"):
            checkpoints.restore_model(huge)


@pytest.mark.parametrize("name", ["lr=[0.1,0.01]", "a*b?", "back\\slash"])
def test_a_directory_whose_name_is_a_pattern(tmp_path, name):
    for _ in range(2):
        with Checkpoints(tmp_path / name / "checkpoints") as checkpoints:
            checkpoints.save(state_of(2))
            checkpoints.wait()
            assert bias(checkpoints.restore_model(Net())) == 2


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
