"""The benchmark's protocol: what is drawn, and all of it on miniatures of its data, laid out as it distributes them."""

import csv
import io
import json
import re

import numpy as np
import pytest
import tyro
from PIL import Image

import camjax
from camjax.data.annotated import open_annotated
from camjax.errors import InputError
from camjax.terminal import Console
from camjax.training import TrainingError
from camjax.training.published import tscam
from experiments.cub import __main__ as cub
from experiments.wsol import __main__ as protocol
from experiments.wsol import search
from experiments.wsol.data import FirstOfEachClass
from experiments.wsol.search import base_recipe, best_of, draw, network_names
from experiments.wsol.tables import final_table, published
from tests.experiments.colors import TINY

VIT = "tests.tiny_vit:tiny_vit"
COLORS = ((220, 60, 40), (50, 200, 60))


def write_miniature(root, name, counts, with_masks=False):
    """dataset/NAME with images and masks, metadata/NAME with lists, in wsolevaluation's layout."""
    images, lists, rng = root / "dataset" / name, root / "metadata" / name, np.random.default_rng(0)
    for split, count in counts.items():
        lines = {"image_ids": [], "class_labels": [], "image_sizes": [], "localization": []}
        for i in range(count):
            label, path = i % 2, f"{split}2/{i % 2:03}/{i}.png"
            height, width = 40 + 2 * i, 60
            y0, x0, y1, x1 = 5 + i, 8, 30, 40 + i
            pixels = rng.integers(60, 120, (height, width, 3))
            pixels[y0:y1, x0:x1] = COLORS[label] + rng.integers(-20, 20, (y1 - y0, x1 - x0, 3))
            (images / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(images / path)
            lines["image_ids"].append(path)
            lines["class_labels"].append(f"{path},{label}")
            lines["image_sizes"].append(f"{path},{width},{height}")
            if with_masks:
                mask, ignore = np.zeros((2, height, width), np.uint8)
                mask[y0:y1, x0:x1], ignore[:4] = 255, 255
                files = [path.replace(".png", f"_{kind}.png") for kind in ("m", "ignore")]
                for file, region in zip(files, (mask, ignore), strict=True):
                    Image.fromarray(region).save(images / file)
                lines["localization"].append(",".join([path, *files]))
            else:
                lines["localization"].append(f"{path},{x0},{y0},{x1},{y1}")
        if with_masks:
            del lines["image_sizes"]
        if split == "train":
            del lines["localization"]
        (lists / split).mkdir(parents=True)
        for list_name, rows in lines.items():
            (lists / split / f"{list_name}.txt").write_text("".join(f"{row}\n" for row in rows))


COUNTS = {"train": 8, "val": 6, "test": 4}


def run(root, monkeypatch, *words):
    monkeypatch.chdir(root)
    given = ("--network", TINY, "--weights", "random", "--epochs", 2, "--batch-size", 4, "--out", "out", *words)
    options = tyro.cli(protocol.Options, args=[str(word) for word in given])
    protocol.main(options)
    return json.loads((root / "out" / "results.json").read_text())


def test_cub_goes_through_the_command(tmp_path, monkeypatch, capsys):
    write_miniature(tmp_path, "CUB", COUNTS)
    opened, open_split = [], protocol.open_split
    monkeypatch.setattr(protocol, "open_split", lambda *args: opened.append(args[1]) or open_split(*args))
    words = ("--dataset", "cub", "--method", "has", "grid_size=4", "--trials", 2, "--seeds", 2)
    stages = run(tmp_path, monkeypatch, *words)
    assert list(stages) == ["trial 0", "trial 1", "search", "test, seed 0", "test, seed 1"]
    assert opened == ["train", "val", "test"]
    scores = [stages[f"trial {i}"]["results"]["score"] for i in range(2)]
    best = best_of({i: {"score": score} for i, score in enumerate(scores)})
    assert stages["test, seed 0"]["options"]["learning_rate"] == stages[f"trial {best}"]["options"]["learning_rate"]
    numbers = stages["test, seed 0"]["results"]
    assert numbers["thresholds of train-fullsup"] <= numbers["MaxBoxAccV2"]
    with (tmp_path / "out" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["grid_size"] for row in rows] == ["4", "4"] and rows[0]["drop_rate"] != rows[1]["drop_rate"]
    runs = ["trials/000", "trials/001", "seeds/1"]
    assert all((tmp_path / "out" / run / "run_card.json").exists() for run in runs)
    assert (tmp_path / "out" / f"trials/{best:03}" / "test" / "cases.png").exists()
    printed = capsys.readouterr().out
    assert "published" not in printed.replace("Published numbers are on all 5,794", "") and "2 seeds" in printed

    # Nothing is trained again; and after the test split, no other search.
    monkeypatch.setattr(protocol, "train_in", None)
    assert run(tmp_path, monkeypatch, *words) == stages
    with pytest.raises(InputError, match=r"holds 'search' with other options: trials was 2, is 3"):
        run(tmp_path, monkeypatch, *words, "--trials", 3)


def test_openimages_goes_through_the_command(tmp_path, monkeypatch):
    write_miniature(tmp_path, "OpenImages", {**COUNTS, "val": 12}, with_masks=True)
    stages = run(tmp_path, monkeypatch, "--dataset", "openimages", "--trials", 0, "--seeds", 1)
    numbers = stages["test, seed 0"]["results"]
    assert 0 < numbers["PxAP"] <= 100 and 0 < numbers["PxAP on train-fullsup"] <= 100
    assert stages["test, seed 0"]["options"]["images"] == [8, 10]  # five of six of each class
    val = open_annotated(tmp_path / "dataset/OpenImages", "val", lists=tmp_path / "metadata/OpenImages")
    first = FirstOfEachClass(val, 1)
    assert [first.annotation(i).filename for i in range(len(first))] == ["val2/000/0.png", "val2/001/1.png"]
    assert set(np.unique(first.mask(1))) == {0, 1, 255}


def test_table_4_reads_the_same_folders(tmp_path, monkeypatch):
    write_miniature(tmp_path, "CUB", COUNTS)
    opened = []
    monkeypatch.setattr(cub, "run", lambda options, train, test, console: opened.extend([train, test]))
    cub.main(cub.Options(dataset=str(tmp_path / "dataset/CUB"), lists=tmp_path / "metadata/CUB", limit_test=3))
    assert [len(source) for source in opened] == [8, 3] and opened[1].annotation(2).boxes.shape == (1, 4)


def test_a_trial_that_diverges_has_no_score(tmp_path, monkeypatch):
    write_miniature(tmp_path, "CUB", COUNTS)
    monkeypatch.setattr(search, "run_training", raises(TrainingError("The loss of step 3 is nan")))
    with pytest.raises(InputError, match="none of 2 trials trained to its end"):
        run(tmp_path, monkeypatch, "--dataset", "cub", "--trials", 2)
    assert "The loss of step 3 is nan" in (tmp_path / "out" / "trials.csv").read_text()


def raises(error):
    def function(*_, **__):
        raise error

    return function


def test_lists_that_are_missing_are_named(tmp_path, monkeypatch):
    write_miniature(tmp_path, "CUB", {"train": 2})
    with pytest.raises(
        FileNotFoundError, match=r"metadata/CUB/val/image_ids.txt.* are missing. Expected:(?s:.*)--lists"
    ):
        run(tmp_path, monkeypatch, "--dataset", "cub")


def test_a_trial_depends_on_its_number_alone():
    draws = [draw(0, i, "vgg16", "spg", {"high_2": 0.5}, None) for i in range(40)]
    assert draws[3] == draw(0, 3, "vgg16", "spg", {"high_2": 0.5}, None) != draw(1, 3, "vgg16", "spg", {}, None)
    assert {of.network for of in draws} == {"vgg16_wsol", "vgg16_wsol_28x28"} == set(network_names("vgg16"))
    rates = np.log10([of.learning_rate for of in draws])
    assert rates.min() < -4 and rates.max() > -1 and (rates >= -5).all() and (rates <= 0).all()
    assert all(of.wsol["high_2"] == 0.5 for of in draws) and len({of.wsol["low_1"] for of in draws}) == 40
    assert draw(0, 0, TINY, "cam", {}, 0.25).learning_rate == 0.25


def test_the_best_trial():
    scores = [50.0, None, 60.0, 60.0]
    assert best_of({i: {"score": score} for i, score in enumerate(scores)}) == 2
    with pytest.raises(InputError, match="none of 1 trials trained to its end"):
        best_of({0: {"score": None}})


def test_settings_and_published_numbers():
    cub, openimages = protocol.DATASETS["cub"], protocol.DATASETS["openimages"]
    assert base_recipe(cub, "resnet50_wsol_28x28", 5994).steps == 9366
    assert base_recipe(openimages, "vgg16_wsol", 29_819).steps == round(10 * 29_819 / 32)
    # As in the command of the README of github.com/clovaai/wsolevaluation.
    assert base_recipe(openimages, "vgg16_wsol", 29_819).learning_rate == 0.00227913316
    assert base_recipe(cub, "small_gap", 5994).new_layers == ["head"]
    assert base_recipe(cub, VIT, 5994) == tscam("cub") and tscam("cub").algorithm == "adamw"
    assert base_recipe(protocol.DATASETS["scenes"], VIT, 6000).algorithm == "adamw"

    def of(name, method, network):
        return published(protocol.DATASETS[name], name, method, network)

    assert (of("cub", "adl", "resnet50"), of("openimages", "has", "inception_v3")) == (
        {"MaxBoxAccV2": 58.4},
        {"PxAP": 58.1},
    )
    assert of("imagenet", "spg", "vgg16") == {"MaxBoxAccV2": 59.9} and of("cub", "cam", "small_gap") == {}
    numbers = {"top-1 localization": 71.3, "GT-known localization": 87.7, "top-1 accuracy": 80.3}
    assert of("cub", "tscam", "deit_small_patch16_224") == numbers and of("cub", "tscam", "resnet50") == {}
    ours = {"MaxBoxAccV2": 60.0, **dict.fromkeys(numbers, 50.0)}
    lines = io.StringIO()
    Console(file=lines, width=120).print(final_table(cub, "cub", "tscam", "deit_small_patch16_224", [ours], True))
    assert re.search(r"top-1 localization +71.3 +50.0", lines.getvalue())
    assert re.search(r"MaxBoxAccV2 +59.7 +60.0", lines.getvalue())


def test_a_transformer_goes_through_the_command_with_ts_cam(tmp_path, monkeypatch):
    """A class token alone has no class activation map: that is said before anything is trained."""
    write_miniature(tmp_path, "CUB", COUNTS)
    words = ("--dataset", "cub", "--network", VIT, "--trials", 0, "--seeds", 1)
    monkeypatch.setattr(protocol, "train_in", None)
    with pytest.raises(InputError, match="has no class activation maps"):
        run(tmp_path, monkeypatch, *words)
    monkeypatch.undo()
    numbers = run(tmp_path, monkeypatch, *words, "--method", "tscam")["test, seed 0"]["results"]
    assert 0 <= numbers["top-1 localization"] <= numbers["GT-known localization"] <= 100
    assert camjax.load_model(tmp_path / "out" / "seeds" / "0").created_as["wsol"] == {"method": "tscam"}
