"""The Python files of `examples/` run; a few steps of training here, as written in `make test-long`."""

import importlib.util
import socket
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import requests
from conftest import random_network, status_without_a_client
from skimage import data, io

import camjax
from camjax.data.images import resize_image

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def network(monkeypatch):
    """What `camjax.load_model` returns: a small network in place of the real one."""
    model = random_network("small_gap", 1000)
    model.class_names = tuple(map(str, range(1000)))
    monkeypatch.setattr(camjax, "load_model", lambda name: model)
    return model


@pytest.fixture
def photographs(tmp_path):
    for name in ("cat", "coffee"):
        io.imsave(tmp_path / f"{name}.png", {"cat": data.chelsea, "coffee": data.coffee}[name]())
    return tmp_path


def test_they_are_short_and_pages_name_them():
    lines = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert len(lines) == 6 and max(lines.values()) < 80, lines
    pages = [page.read_text() for page in (EXAMPLES.parent / "docs").rglob("*.md")]
    assert all(sum(f"/examples/{name})" in page for page in pages) >= 2 for name in lines)  # the list, and a subject's


def test_a_loss_with_maps():
    """The gradient goes through the maps: the consistency's weight changes what a step makes of the same network."""
    train = example("cam_loss").main
    (first, second), (same, other) = train(2, 1.0), train(2, 0.0)
    assert first == same and abs(second["classes"] - other["classes"]) > 1e-3


@pytest.mark.long
def test_maps_become_consistent():
    train = example("cam_loss").main
    assert train(40, 1.0)[-1]["consistency"] < 0.7 * train(40, 0.0)[-1]["consistency"]


@pytest.mark.parametrize("loader", ["grain", pytest.param("torch", marks=pytest.mark.parity)])
def test_batches_of_other_loaders(loader, network, photographs):
    images = camjax.load_images(sorted(photographs.glob("*.png")), network.input_size)
    expected = camjax.cam_fn(network, images).class_ids[:, 0].tolist()
    found = example("input_pipelines").main([str(photographs), "--loader", loader])
    assert found == {"cat.png": str(expected[0]), "coffee.png": str(expected[1])}


def test_a_loader_that_is_not_installed_is_skipped_with_a_sentence(photographs, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert example("input_pipelines").main([str(photographs), "--loader", "tf"]) == {}
    assert capsys.readouterr().out == "Skipped: --loader tf needs the package tensorflow, which is not installed.\n"


def test_a_segmentation_target():
    found = example("segmentation_target").main(steps=60)
    assert found["mass_in_bar"] > 2 * found["bar"]


@pytest.mark.parametrize("steps", [1, pytest.param(150, marks=pytest.mark.long)])
def test_several_classes_in_a_picture(steps):
    found = example("multi_label").main(steps)
    assert all(0 <= share <= 1 for share in found.values())
    assert steps == 1 or (found["classes"] > 0.95 and found["middle_inside"] > 0.5)


@pytest.mark.parametrize("steps", [1, pytest.param(120, marks=pytest.mark.long)])
def test_a_series_of_16_bits(steps):
    module = example("medical_series")
    found = module.main(steps)
    np.testing.assert_allclose(
        module.windowed(np.array([[0, 864, 1064, 1264, 65535]]))[0, :, 0], [0, 0, 127.5, 255, 255]
    )
    assert steps == 1 or found["found"] == pytest.approx(found["true"], abs=10)


@pytest.fixture
def service(network):
    """The example's module, the address of a running service, and its application."""
    uvicorn = pytest.importorskip("uvicorn", reason='the example needs pip install "camjax[app]"')
    module = example("serve_boxes")
    listening = socket.create_server(("127.0.0.1", 0))
    application = module.service("efficientnet_lite0")
    running = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield module, f"http://127.0.0.1:{listening.getsockname()[1]}/boxes", application
    running.should_exit = True
    thread.join()


def test_a_service_answers_with_boxes_and_refuses_what_is_too_large(service, network, photographs, monkeypatch):
    module, address, application = service
    picture = (photographs / "cat.png").read_bytes()
    answer = requests.post(address, data=picture).json()
    found = camjax.make_localize_fn(network, top_k=3)(resize_image(data.chelsea(), network.input_size)[None])
    assert [one["class"] for one in answer] == list(map(str, found.class_ids[0].tolist()))
    np.testing.assert_allclose([one["box"] or [0] * 4 for one in answer], found.boxes[0], atol=1e-6)
    assert sum(one["probability"] for one in answer) <= 1

    def refused(content) -> tuple[int, str]:
        answer = requests.post(address, data=content)
        return answer.status_code, answer.json()["error"]

    assert refused(b"no picture")[0] == 400 and "not an image" in refused(b"no picture")[1]
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    assert refused(picture) == (400, "451 x 300 pixels; expected at most 1,000.")
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    assert refused(iter([picture])) == (413, "expected at most 1,000 bytes")  # in pieces, with no length beforehand
    assert requests.get(address).status_code == 405
    assert status_without_a_client(application, "/boxes") == 400  # and no traceback
