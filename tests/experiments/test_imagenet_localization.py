"""The tables of the paper, without weights and with a network in the place of the paper's."""

import json

import numpy as np
import pytest
from flax import nnx

import camjax
from camjax.data.annotation import AnnotatedSource, Annotation
from camjax.data.sources import SourceInfo
from camjax.terminal import Console
from camjax.training import Recipe, fit
from experiments.imagenet_localization import __main__ as imagenet_localization
from experiments.imagenet_localization import tables as tables_module
from experiments.imagenet_localization.__main__ import Options, main, weights_of
from experiments.imagenet_localization.tables import NETWORKS, TABLES, Row, tables
from tests.experiments.colors import TINY


class Squares(AnnotatedSource):
    """Six noisy images with a bright square, whose place is the box."""

    has_boxes = True
    info = SourceInfo("squares", "validation", tuple("abcdef"), 6, ("image", "label"))

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 60, (64, 64, 3), np.uint8)
        image[16:48, 8 + index : 40 + index] = 200
        return {"image": image, "label": index, "filename": f"{index}.png"}

    def annotation(self, index):
        box = np.array([[0.25, (8 + index) / 64, 0.75, (40 + index) / 64]], np.float32)
        return Annotation(f"{index}.png", index, box)


def text(*printed) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(*printed)
    return capture.get()


def test_the_papers_numbers_stand_without_any_weights(capsys):
    main(Options())
    printed = capsys.readouterr().out
    for number in ("33.40", "12.20", "56.40", "43.00", "37.10", "46.40", "26.70", "54.19"):
        assert number in printed
    assert "Not run" in printed and "googlenet_gap" in printed


def test_every_row_is_a_network_that_can_be_run():
    rows = [row for _, rows in TABLES.values() for row in rows]
    assert {row.file for row in rows if row.file} == set(NETWORKS)
    assert {name for name, _ in NETWORKS.values()} <= set(camjax.list_models())
    # Networks with fully connected layers have no class activation maps.
    assert {row.method for row in rows if row.file in ("alexnet", "vgg16")} == {"backprop"}


def test_a_network_is_run_once_for_all_its_rows_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    examples = [Squares()[i] for i in range(6)]
    recipe = Recipe(steps=1, batch_size=6, learning_rate=0.01)
    model = camjax.create_model(TINY, 6, rngs=nnx.Rngs(0))
    fit(model, examples, recipe, run_dir=tmp_path / "weights" / "small", progress=False)
    rows = (
        Row("ours", "small", "cam", "ilsvrc", (50.0, 40.0)),
        Row("with five", "small", "cam", "heuristic", (None, 37.1)),
    )
    networks = {"small": (TINY, "gap"), "nin": ("nin", "gap")}
    monkeypatch.setattr(imagenet_localization, "NETWORKS", networks)
    for module in (imagenet_localization, tables_module):
        monkeypatch.setattr(module, "TABLES", {"Table": ("localization", rows)})
    monkeypatch.setattr(imagenet_localization, "open_annotated", lambda *_, **__: Squares())
    options = Options(weights_dir=tmp_path / "weights", out=tmp_path / "out", batch_size=2)
    main(options)
    printed = capsys.readouterr().out
    assert "6 images: 6 scored." in printed and "no weights for them: nin" in printed
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    numbers = results["small"]["results"]["cam"]
    assert f"{numbers['ilsvrc']['top5_localization_error']:.2f}" in text(*tables(results))
    assert "paper, top-1" not in printed and "6 of squares, validation" in printed
    whole = {**results["small"], "dataset": "imagenet2012", "num_images": 50_000}
    assert {"40.00", "37.10", "50,000"} <= {*text(*tables({"small": whole})).split()}
    assert "40.00" not in text(*tables({"small": {**whole, "num_images": 49_999}}))
    main(options)
    assert (
        json.loads((tmp_path / "out" / "results.json").read_text())["small"]["results"] == results["small"]["results"]
    )


def test_two_files_for_one_network_are_an_error(tmp_path):
    for name in ("nin.pth", "nin.caffemodel"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="expected one"):
        weights_of(tmp_path)
    with pytest.raises(FileNotFoundError, match="not found"):
        weights_of(tmp_path / "nowhere")
