"""What a run refuses: no room, no folder, losses that are not finite."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_run import Colors, Net, tiny_recipe

from camjax.data.loader import batch_indices, train_batches
from camjax.errors import InputError
from camjax.training import Checkpoints, TrainingError, TrainState, fit
from camjax.training.checks import check_labels, finite_means
from camjax.training.parallel import parallel_train_step


class Unread(Colors):
    def __getitem__(self, index):
        raise AssertionError("a step was begun")


class Numbered(Colors):
    def __getitem__(self, index):
        return {"image": np.zeros((8, 8, 3), np.uint8), "label": index}


@pytest.mark.parametrize("step", [0, 3, 4, 11])
def test_the_examples_of_a_batch_are_those_that_training_reads(step):
    """40 examples, batches of 12: batch 3 runs on into the second epoch."""
    batches = train_batches(Numbered(), batch_size=12, seed=5, start_step=step)
    expected = next(batches)["label"]
    batches.close()
    np.testing.assert_array_equal(batch_indices(40, batch_size=12, seed=5, step=step), expected)


def test_a_full_disk_is_said_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000))
    with pytest.raises(OSError, match=r"3 checkpoints of 0 MB take 0 MB, and 0 MB are free. Make room"):
        fit(Net(), Unread(), tiny_recipe(9), run_dir=tmp_path, checkpoint_every=1, progress=False)


def test_only_the_checkpoints_to_come_need_room(tmp_path, monkeypatch):
    """The state is 259 parameters with their momentum, statistics, counts and keys: 2 to 3 kB."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000))
    fit(Net(), Colors(), tiny_recipe(2), run_dir=tmp_path, progress=False)


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run is not writable .*Not a directory.*run_dir"):
        fit(Net(), Unread(), tiny_recipe(2), run_dir=tmp_path / "file" / "run", progress=False)


def test_a_loss_that_is_not_finite_names_step_and_batch():
    means = [{"loss": np.float32(loss), "gradient_norm": np.float32(1)} for loss in (1.0, 2.0, np.nan)]
    recipe = tiny_recipe(9, seed=5)
    assert finite_means(means[:2], 4, Colors(), recipe)["loss"] == 1.5
    indices = ", ".join(map(str, batch_indices(40, batch_size=8, seed=5, step=5)))
    with pytest.raises(TrainingError, match=rf"loss of step 6 is nan.* batch is number 5, .*examples {indices}\."):
        finite_means(means, 4, Colors(), recipe)
    with pytest.raises(TrainingError, match="gradient's norm of step 1 is inf"):
        finite_means([{"loss": np.float32(1), "gradient_norm": np.float32(np.inf)}], 1, Colors(), recipe)


def test_no_state_is_saved_after_a_loss_that_is_not_finite(tmp_path):
    """Losses are looked at every 100 steps, checkpoints are due after each: saving waits for the look."""
    recipe = tiny_recipe(50, learning_rate=1e30, warmup_steps=0, decay="constant")
    options = {"run_dir": tmp_path, "checkpoint_every": 1, "log_every": 100, "progress": False}
    with pytest.raises(TrainingError, match=r"of step \d+ is (nan|inf)|not finite after step"):
        fit(Net(), Colors(), recipe, **options)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps()
        state = checkpoints.restore(TrainState.create(Net(), recipe))
    assert np.isfinite(state.model.head.kernel[...]).all()


def test_a_step_on_all_devices_looks_at_the_labels():
    recipe = tiny_recipe(2)
    batch = {"image": np.zeros((8, 8, 8, 3), np.uint8), "label": np.array([0, 1, 2, 0, 1, 2, 0, 3])}
    with pytest.raises(InputError, match=r"row 7 of a batch has the label 3: .* 0\.\.2"):
        parallel_train_step(recipe)(TrainState.create(Net(), recipe), batch)
    padding = np.arange(8) < 7
    assert check_labels({**batch, "mask": padding}, 3)["mask"] is padding
