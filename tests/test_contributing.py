"""CONTRIBUTING.md is right: what it says to add is added to a copy of the project, and works there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import camjax

ROOT = Path(camjax.__file__).parents[1]
BLOCK = re.compile(r"^(?:`(?P<path>[\w/]+\.py)`\n\n)?```(?P<language>python|diff)\n(?P<text>.*?)^```\n", re.M | re.S)

SETUP = """
from pathlib import Path
import numpy as np
from PIL import Image
import camjax

assert Path(camjax.__file__).is_relative_to(Path.cwd()), camjax.__file__
folder = Path("photographs")
images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
for name, image in zip(("cat", "coffee"), images, strict=True):
    (folder / name).mkdir(parents=True)
    Image.fromarray(image).save(folder / name / "1.png")
(folder / "boxes.csv").write_text("filename,xmin,ymin,xmax,ymax\\ncat/1.png,8,8,23,15\\ncoffee/1.png,0,0,9,9\\n")
model = camjax.create_model("small_gap", num_classes=2)
model.eval()
"""


def changed(content: str, diff: str) -> str:
    """A file's content after a diff without line numbers; what it takes out, or leaves, stands there exactly once."""
    lines = [(line[:1], line[1:]) for line in diff.splitlines(keepends=True)]
    before = "".join(text for mark, text in lines if mark in " -")
    assert content.count(before) == 1, before
    return content.replace(before, "".join(text for mark, text in lines if mark in " +"))


def test_what_it_says_to_add_works(tmp_path):
    for package in ("camjax", "experiments"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    checks, path = [SETUP], None
    sections = (ROOT / "CONTRIBUTING.md").read_text().split("\n## Add ")[1:]
    assert len(sections) == 6
    for section in sections:
        for block in BLOCK.finditer(section):
            path = tmp_path / block["path"] if block["path"] else path if block["language"] == "diff" else None
            if path is None:
                checks.append(block["text"])
            elif block["language"] == "diff":
                path.write_text(changed(path.read_text(), block["text"]))
            else:
                path.parent.mkdir(exist_ok=True)
                path.write_text(block["text"])
    assert len(checks) == 1 + len(sections)
    done = subprocess.run([sys.executable, "-c", "\n".join(checks)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
