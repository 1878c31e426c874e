"""Batches of tf.data, in the environment of `camjax prepare`, where TensorFlow is."""

import json
import subprocess
from pathlib import Path

import cv2
import pytest
from test_docs import python_of
from tiny_run import Colors

PYTHON = Path(__file__).parents[2] / ".venv-prepare" / "bin" / "python"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no {PYTHON}; `make test-parity` makes it"),
]

SETUP = """
import json
import camjax
from camjax.training import Recipe, evaluate, fit

model = camjax.create_model("small_gap", 3)
model.input_size = (16, 16)
recipe = Recipe(steps=30, batch_size=16, learning_rate=0.05, warmup_steps=5)
"""
RESULT = """
rows = [len(labels) for _, labels in pictures]
print(json.dumps([type(pictures).__module__, rows, model.class_names, evaluate(model, pictures, batch_size=16)]))
"""


def test_the_guide(tmp_path):
    """Its code, with a small network, `Colors` as PNG files, and batches that are not the recipe's."""
    for index in range(40):
        image, label = Colors()[index].values()
        (tmp_path / "photographs" / "abc"[label]).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(tmp_path / "photographs" / "abc"[label] / f"{index}.png"), image)
    (block,) = (block for block in python_of("docs/training.md") if "tensorflow" in block)
    code = SETUP + block.replace('"batch_size": 64', '"batch_size": 12') + RESULT
    done = subprocess.run([PYTHON, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    module, rows, names, metrics = json.loads(done.stdout.splitlines()[-1])
    assert module.startswith("tensorflow.python.data") and rows == [12, 12, 12, 4] and names == ["a", "b", "c"]
    assert metrics["accuracy"] > 0.8
