"""Linear support vector machines as a kernel and a bias: scikit-learn's decisions, from maps."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import camjax
from camjax.features import FeatureStore
from camjax.features import svm as linear_svm
from camjax.features.svm import fit_linear_svm


def pixel_features(n=90, classes=5, channels=12, seed=0):
    """(n, 3, 4, K) feature maps of very different scales, of classes that overlap, and labels (n,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    maps = rng.normal(size=(n, 3, 4, channels)) + rng.normal(size=(classes, channels))[labels][:, None, None] * 0.3
    return ((maps + np.linspace(-5, 5, channels)) * np.logspace(-2, 2, channels)).astype(np.float32), labels


def oracle(penalty, seed=0):
    return make_pipeline(StandardScaler(), LinearSVC(C=penalty, random_state=seed))


@pytest.mark.parametrize("classes", [2, 5])
def test_the_mean_of_a_map_plus_the_bias_is_scikit_learns_decision_value(classes):
    maps, labels = pixel_features(classes=classes)
    pooled = maps.astype(np.float64).mean((1, 2))
    svm = fit_linear_svm(pooled, labels, classes, penalties=[0.01])
    expected = oracle(0.01).fit(pooled, labels).decision_function(pooled)
    if classes == 2:
        expected = np.stack([-expected, expected], axis=1)
    cams = np.asarray(camjax.class_activation_map(maps, svm.kernel))
    np.testing.assert_allclose(cams.mean((2, 3)) + svm.bias, expected, atol=2e-5)
    np.testing.assert_allclose(svm.decision_values(pooled), expected, atol=2e-5)
    assert (svm.penalty, svm.cross_validation) == (0.01, {})
    assert (expected.argmax(1) == labels).mean() > 0.8


def test_the_penalty_is_that_of_the_best_cross_validation():
    maps, labels = pixel_features(n=120)
    pooled = maps.mean((1, 2))
    penalties = (1e-7, 0.01, 10.0)
    svm = fit_linear_svm(pooled, labels, 5, penalties=penalties, folds=4, seed=3)
    folds = StratifiedKFold(4, shuffle=True, random_state=3)
    features = pooled.astype(np.float64)
    expected = [cross_val_score(oracle(c, seed=3), features, labels, cv=folds).mean() for c in penalties]
    assert list(svm.cross_validation) == list(penalties)
    np.testing.assert_allclose(list(svm.cross_validation.values()), expected, atol=1e-12)
    assert svm.penalty == penalties[int(np.argmax(expected))] and len({*expected}) == 3
    alone = fit_linear_svm(pooled, labels, 5, penalties=[svm.penalty], seed=3)
    np.testing.assert_array_equal(svm.kernel, alone.kernel)


def test_a_class_without_examples_is_never_the_answer_and_changes_nothing_else():
    maps, labels = pixel_features(classes=3)
    pooled = maps.mean((1, 2))
    svm = fit_linear_svm(pooled, np.array([0, 2, 4])[labels], 6, penalties=[0.01])
    packed = fit_linear_svm(pooled, labels, 3, penalties=[0.01])
    np.testing.assert_array_equal(svm.kernel[:, [0, 2, 4]], packed.kernel)
    np.testing.assert_array_equal(svm.bias[[0, 2, 4]], packed.bias)
    assert not svm.kernel[:, [1, 3, 5]].any() and svm.bias[[1, 3, 5]].tolist() == [-1] * 3
    # What liblinear itself learns from examples that are all of other classes: one stands in, at the middle of them.
    solver = LinearSVC(C=100.0).fit(np.concatenate([np.zeros((1, 2)), [[1, 1], [-1, -1]] * 50]), [1] + [0] * 100)
    assert abs(solver.coef_).max() < 0.05 and solver.intercept_ == pytest.approx(-1, abs=0.05)


def test_features_without_variation_count_for_nothing():
    maps, labels = pixel_features()
    pooled = maps.mean((1, 2))
    pooled[:, 3] = 7
    svm = fit_linear_svm(pooled, labels, 5, penalties=[0.01])
    rest = fit_linear_svm(np.delete(pooled, 3, axis=1), labels, 5, penalties=[0.01])
    assert np.isfinite(svm.kernel).all() and np.isfinite(svm.bias).all()
    np.testing.assert_allclose(
        svm.decision_values(pooled), rest.decision_values(np.delete(pooled, 3, axis=1)), atol=1e-2
    )


def test_features_on_disk_count_as_those_in_memory(tmp_path):
    maps, labels = pixel_features(n=90)
    pooled = maps.mean((1, 2))
    expected = fit_linear_svm(pooled.astype(np.float64), labels, 5)
    np.save(tmp_path / "features-00000.npy", pooled[:64])
    np.save(tmp_path / "features-00001.npy", pooled[64:])
    (tmp_path / "features.json").write_text('{"images": 90, "channels": 12, "shard_size": 64}')
    memory_map = np.memmap(tmp_path / "raw", np.float32, "w+", shape=pooled.shape)
    memory_map[:] = pooled
    for features in (pooled, memory_map, FeatureStore(tmp_path), pooled.tolist()):
        svm = fit_linear_svm(features, labels, 5)
        np.testing.assert_array_equal(svm.kernel, expected.kernel)
        np.testing.assert_array_equal(svm.bias, expected.bias)
        assert svm[2:] == expected[2:]
    np.testing.assert_array_equal(memory_map, pooled)


@pytest.mark.parametrize(("name", "value"), [("_ROWS", 7), ("MEMORY", 1)])
def test_neither_parts_nor_turns_change_what_comes_out(monkeypatch, name, value):
    maps, labels = pixel_features(n=90)
    pooled = maps.mean((1, 2))
    expected = fit_linear_svm(pooled, labels, 5)
    monkeypatch.setattr(linear_svm, name, value)
    svm = fit_linear_svm(pooled, labels, 5)
    np.testing.assert_allclose(svm.kernel, expected.kernel, rtol=1e-3, atol=1e-4 * abs(expected.kernel).max())
    np.testing.assert_allclose(svm.decision_values(pooled), expected.decision_values(pooled), atol=1e-4)
    assert svm[2:] == expected[2:]


@pytest.mark.parametrize(
    ("numbers", "cores", "expected"),
    [
        (4000 * 1280, 2, (3, 2)),  # 3 x 41 MB, and 2 x 82 MB: all folds, and as many fits as cores
        (4000 * 1280, 64, (3, 9)),
        # Of 100,000 x 1,024, two thirds: 546 MB of each fold, 1092 MB of each fit. All folds leave room for one fit.
        (66_667 * 1024, 64, (1, 2)),
        (66_667 * 1024, 1, (3, 1)),
        (200_000 * 1024, 64, (1, 1)),  # more than there is to spend, but nothing less would do
    ],
)
def test_fits_side_by_side_stay_within_the_memory(monkeypatch, numbers, cores, expected):
    monkeypatch.setattr(linear_svm.joblib, "cpu_count", lambda: cores)
    assert linear_svm._side_by_side(numbers, 3, 3) == expected


FIT = """
import numpy as np
from camjax.features import svm as linear_svm

def memory(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

rng = np.random.default_rng(0)
labels = np.arange(2_000) % 2
features = rng.normal(size=(2_000, 512)).astype(np.float32) + labels[:, None] / 10
features = features.astype(np.float32)
linear_svm.fit_linear_svm(features[:100], labels[:100], 2)
linear_svm.MEMORY, linear_svm._ROWS = 24 * features.size, 256
linear_svm.joblib.cpu_count = lambda: 64
open("/proc/self/clear_refs", "w").write("5")  # resets the peak
before = memory("VmRSS")
linear_svm.fit_linear_svm(features, labels, 2)
print((memory("VmHWM") - before) / features.size)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_does_not_grow_with_the_cores():
    # What is freed goes back to the system at once, also where it is as small as here.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    result = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    # Bytes a number: 8 and 16 of the last fit. A second float64 copy would be 8, each fit too many 10.7.
    assert 20 < float(result.stdout) < 28


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((4, 2, 2))}, r"\(n, K\)"),
        ({"features": np.zeros((4, 0))}, r"\(n, K\)"),
        ({"labels": np.array([0, 1, 2])}, r"labels of shape \(3,\)"),
        ({"labels": np.array([0.0, 1, 0, 1])}, "float64"),
        ({"labels": np.array([True, False, True, False])}, "dtype bool"),
        ({"labels": np.eye(3, dtype=int)[[0, 1, 2, 0]]}, r"labels of shape \(4, 3\).*labels\.argmax\(1\)"),
        ({"features": np.eye(4)[:, :2] * 1j}, "dtype complex128: expected real numbers"),
        ({"features": np.eye(4)[:, :2].astype(str)}, "expected real numbers"),
        ({"labels": np.array([1, 1, 1, 1])}, "two classes"),
        ({"labels": np.array([0, 1, 2, -1])}, r"0\.\.2"),
        ({"labels": np.array([0, 1, 2, 3])}, r"0\.\.2"),
        ({"features": np.array([[0, 1], [np.nan, 0], [1, 0], [0, 0]])}, r"examples \[1\]"),
        ({"penalties": ()}, "at least one"),
        ({"penalties": (1.0, 0.0)}, "positive"),
        ({"penalties": (1.0, 0.1)}, "folds=3"),
    ],
)
def test_what_does_not_fit_together_is_said(changes, message):
    arguments = {"features": np.eye(4)[:, :2], "labels": np.array([0, 1, 0, 1]), "num_classes": 3, "penalties": (1.0,)}
    with pytest.raises(ValueError, match=message):
        fit_linear_svm(**(arguments | changes))


def test_what_has_no_decision_value_is_said():
    svm = fit_linear_svm(np.eye(4)[:, :2], np.array([0, 1, 0, 1]), 2, penalties=(1.0,))
    with pytest.raises(ValueError, match=r"features of shape \(4, 4\): expected \(n, 2\)"):
        svm.decision_values(np.eye(4))
    with pytest.raises(ValueError, match="could not be read"):
        svm.decision_values(np.array([[0, np.nan]]))
