"""What tests share: how programs are compiled and kept, photographs, and networks."""

import asyncio
import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

# Before SciPy is loaded, whose LAPACK JAX calls: with threads of its own, which wait by spinning, a decomposition of a
# small matrix takes a hundred times as long where other processes use the cores, as pytest's workers do.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jaxlib.version
import numpy as np
import pytest
from flax import nnx
from matplotlib.figure import Figure
from skimage import data

import camjax
from camjax.data.images import resize_image
from camjax.models import CamModel, PooledHead
from camjax.models.shapes import model_shapes

# Most of a test's time is compilation, and most of that is optimization, which changes what a program computes by
# rounding alone. So the tests, and every process that they start, compile with little of it. XLA_FLAGS in the
# environment wins: `XLA_FLAGS= pytest` runs the programs that users run, as `make test-parity` and `make test-long` do.
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = "--xla_cpu_parallel_codegen_split_count=1"
    if jaxlib.version.__version_info__ < (0, 11, 1):  # later ones do not know the flag, and end the process
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    jax.config.update("jax_disable_most_optimizations", True)


STRICT = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_debug_nans": True,
}
"""JAX's settings for types, ranks and checks that a user may turn on together."""


def pytest_configure(config):
    """Keeps compiled programs in pytest's cache: for xdist's workers, processes that tests start, and later sessions.

    `pytest --cache-clear` empties it. JAX's settings in the environment win.
    """
    # A shell's job in the background ignores Ctrl-C, and so would the processes whose Ctrl-C is tested.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not hasattr(config, "cache"):
        return
    for name, value in {
        "jax_compilation_cache_dir": str(config.cache.mkdir("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


def pytest_ignore_collect(collection_path, config):
    """Imports no tests that `-m "not parity"` leaves out: PyTorch and others take seconds."""
    return True if collection_path.name.endswith("_parity.py") and "not parity" in config.option.markexpr else None


def pytest_collection_finish():
    """Spares the garbage collector the objects that stay: it took a tenth of the time to look through them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)


def pytest_runtest_teardown(item):
    """Drops compiled programs before a process of long tests has so many that it crashes.

    Linux gives a process 65,530 memory mappings (vm.max_map_count). A program takes about nine of them, a training step
    of a whole network a thousand, and XLA crashes when there are none left.
    """
    mappings = Path("/proc/self/maps")
    if item.get_closest_marker("long") and mappings.exists() and mappings.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def curves(monkeypatch):
    """Finished runs leave an empty figure, since a real one takes a third of a second; test_run_card.py has that."""
    if run_card := sys.modules.get("camjax.training.run_card"):
        monkeypatch.setattr(run_card, "curves_figure", lambda lines: Figure(figsize=(1, 1)))


def photos(size=(224, 224)) -> np.ndarray:
    """(2, H, W, 3) uint8: scikit-image's cat and coffee."""
    return np.stack([resize_image(image, size) for image in (data.chelsea(), data.coffee())])


@pytest.fixture(scope="session")
def lite0():
    return camjax.load_model("efficientnet_lite0")


@pytest.fixture(scope="session")
def scenes_dir(tmp_path_factory):
    """A folder of tfds with few scenes: 60 for training, 30 each for validation and test. Not to be written to."""
    from camjax.data import scenes
    from camjax.data.sources import open_source

    data_dir = tmp_path_factory.mktemp("scenes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "NUM_SCENES", {"train": 60, "validation": 30, "test": 30})
        open_source("scenes", "train", data_dir=data_dir)
    return data_dir


def status_without_a_client(application: Callable, path: str) -> int:
    """What an application answers to an upload whose client has gone."""
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [(b"host", b"localhost")]}
    answers = []

    async def receive() -> dict:
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        answers.append(message)

    asyncio.run(application(scope, receive, send))
    return answers[0]["status"]


def random_network(name: str, num_classes: int | None = None, **options) -> CamModel:
    """What `create_model` builds, in inference mode, with nothing zero or alike by construction, drawn by NumPy.

    `create_model` compiles its draws one by one, for several seconds of a deep network.
    """
    model = model_shapes(name, num_classes, **options)
    random = np.random.default_rng(0)
    for path, variable in nnx.iter_graph(model):
        if not isinstance(variable, nnx.Variable):
            continue
        shape = variable.shape
        if isinstance(variable, nnx.RngKey):
            value = jax.random.key(0)
        elif isinstance(variable, nnx.RngCount):
            value = np.zeros(shape, np.uint32)
        elif len(shape) > 1:  # of variance 2 / fan_in, which keeps features at their scale
            value = random.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[:-1]))
        elif path[-1] in ("var", "scale"):
            value = random.uniform(0.5, 1.5, shape)
        else:
            value = random.normal(0, 0.2, shape)
        variable.set_value(value if isinstance(value, jax.Array) else jax.device_put(value.astype(variable.dtype)))
    model.eval()
    return model


def shallow_gap(num_classes: int) -> CamModel:
    """Two of small_gap's five layers, which compile sooner, in training mode and with statistics that folding shows."""
    model = camjax.create_model("small_gap", num_classes, rngs=nnx.Rngs(0))
    model.layers, model.head = nnx.List(list(model.layers)[:2]), PooledHead(32, num_classes, rngs=nnx.Rngs(1))
    for i, layer in enumerate(model.layers):
        random = np.random.default_rng(i)
        layer.bn.mean[...] = random.normal(0, 0.1, layer.bn.mean.shape).astype(np.float32)
        layer.bn.var[...] = random.uniform(0.5, 1, layer.bn.var.shape).astype(np.float32)
    return model


# Debian's chromium, or the one that the variable CAMJAX_BROWSER names.
BROWSER = os.environ.get("CAMJAX_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")
NO_BROWSER = (
    "no browser: install Debian's chromium (apt-get install chromium), or set CAMJAX_BROWSER to the path of one."
)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="make test-browser installs playwright")
    if BROWSER is None:
        pytest.skip(NO_BROWSER)
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield started
        started.close()
