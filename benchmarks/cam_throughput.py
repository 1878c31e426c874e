"""The cost of camjax's compiled functions compared with PyTorch on the same machine with the same weights.

    python -m benchmarks.cam_throughput [--quick] [--networks]

prints a table and, last, one JSON line of the ratios and figures. A ratio "vs" is the other's time over camjax's: above
1, camjax is faster. Everything is measured in one run, in turns (`benchmarks.timing`), on the device that JAX
chooses. PyTorch has the same number of threads, and its input ready-normalized in its own layout; it runs its bare
forward pass, where `make_cam_fn` also normalizes uint8 images, ranks the classes and computes a map.

The processor must be idle: threads that wait for each other, PyTorch's above all, become many times slower when other
programs run.

- Call overhead: the whole call of a bound function whose network has all of EfficientNet-Lite0's weight arrays, but
  reads one number of each instead of convolving. What is left is the checks, the dispatch with as many arguments, the
  outputs; and a few small operations, so that it is an upper bound.
- Localization: `localize_fn` less `cam_fn`, both with 5 maps an image, per map: the resize of the 7x7 map to 224x224,
  connected components, and the box.
- An exported file: the whole call of `camjax.load_exported`'s function, over that of `make_localize_fn`'s; checks of
  images included.
- `camjax explain`: see `benchmarks.explain_start`.
"""

import argparse
import copy
import functools
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table
from skimage import data

import camjax
from benchmarks.explain_start import compiled_programs, start_times
from benchmarks.peers import import_torchvision, missing
from benchmarks.timing import cpu_count, cpu_name, interleaved, ratio
from camjax.data.images import resize_image
from camjax.models import CamModel

BATCH, TOP_K = 16, 5
BUSY = 0.5  # programs that ran or wanted to, on average over the last minute


@dataclass
class Report:
    """The rows of the table, and the figures of the JSON line."""

    console: Console
    rounds: int
    figures: dict[str, float] = field(default_factory=dict)
    table: Table = field(default_factory=lambda: Table("what", "measured", "figure", "promised", title_justify="left"))

    def add(self, what: str, measured: str, key: str = "", value: float = 0, promise: tuple[str, float] | None = None):
        """Adds a row and, with a key, a figure. promise: (">=" or "<=", bound)."""
        verdict = ""
        if promise:
            kept = value >= promise[1] if promise[0] == ">=" else value <= promise[1]
            verdict = f"{promise[0]} {promise[1]:g} {'[green]kept' if kept else '[red]not kept'}"
        self.table.add_row(what, measured, f"{value:.3g}" if key else "", verdict)
        if key:
            self.figures[key] = round(value, 4)

    def skip(self, what: str, reason: str):
        """Says why a section is missing."""
        self.table.add_row(what, f"[yellow]skipped: {reason}", "", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: one minute or two instead of five")
    parser.add_argument(
        "--networks", action="store_true", help="also compare networks with those of torchvision and timm"
    )
    arguments = parser.parse_args()
    quick = arguments.quick
    report = Report(Console(width=None if sys.stdout.isatty() else 120), rounds=3 if quick else 12)
    report.console.print(environment())
    if (load := os.getloadavg()[0]) > BUSY:
        report.console.print(f"[yellow]The machine is busy (load average {load:.1f}): do not trust what follows.")
    with report.console.status("measuring") as status:
        for section in (
            *(lite0_beside_torch, resnet50_beside_torch, call_overhead, all_maps, localization, exported),
            explain,
        ):
            status.update(section.__name__.replace("_", " "))
            section(report)
            report.table.add_section()
        if arguments.networks:
            networks(report)
    report.console.print(report.table)
    print(json.dumps(report.figures))


def environment() -> str:
    """Hardware, versions and threads, in words."""
    lines = [
        f"{cpu_name()}, {cpu_count()} cores, {cpu_count()} threads each",
        f"JAX {jax.__version__} on {len(jax.devices())} x {jax.devices()[0].device_kind}, camjax {camjax.__version__}",
    ]
    if not missing("torch"):
        import torch

        lines.append(f"PyTorch {torch.__version__} on {torch_device()}")
    return "\n".join(lines)


def torch_device() -> str | None:
    """PyTorch's name of the device that JAX computes on; None where it cannot use it."""
    import torch

    if jax.default_backend() == "cpu":
        return "cpu"
    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else None


def photographs(count: int) -> np.ndarray:
    """(count, 224, 224, 3) uint8: random crops of real photographs."""
    sources = data.astronaut(), data.chelsea(), data.coffee(), data.rocket()
    rng = np.random.default_rng(0)
    images = []
    for i in range(count):
        side = rng.uniform(0.5, 1)
        top, left = rng.uniform(0, 1 - side, 2)
        images.append(resize_image(sources[i % 4], 224, box=(top, left, top + side, left + side)))
    return np.stack(images)


@functools.cache
def lite0() -> CamModel:
    """The pretrained EfficientNet-Lite0."""
    return camjax.load_model("efficientnet_lite0")


@functools.cache
def lite0_cam_fn(top_k: int | None):
    """`make_cam_fn` of it; what one section has compiled, the next one uses."""
    return camjax.make_cam_fn(lite0(), top_k=top_k)


def lite0_beside_torch(report: Report) -> None:
    """The pretrained EfficientNet-Lite0 at batch 16 and 1."""
    if reason := missing("torch", "efficientnet_lite_pytorch"):
        return report.skip("EfficientNet-Lite0", reason)
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    from camjax.models.efficientnet_lite import packaged_file

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(packaged_file(0), weights_only=True))
    normalization = (127, 127, 127), (128, 128, 128)
    for batch in (BATCH, 1):
        beside_torch(
            report, "EfficientNet-Lite0", f"lite0_b{batch}", lite0_cam_fn(1), network, batch, normalization, 1.2
        )
    return None


def resnet50_beside_torch(report: Report) -> None:
    """ResNet-50 with torchvision's random weights at batch 16 and 1."""
    if reason := missing("torch", "torchvision"):
        return report.skip("ResNet-50", reason)
    from safetensors.torch import save_file

    torchvision = import_torchvision()
    network = torchvision.models.resnet50()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "resnet50.safetensors")
        save_file(network.state_dict(), path)
        cam_fn = camjax.make_cam_fn(camjax.load_model("resnet50", weights=path))
    constants = torchvision.models.ResNet50_Weights.DEFAULT.transforms()
    normalization = np.multiply(constants.mean, 255), np.multiply(constants.std, 255)
    for batch in (BATCH, 1):
        beside_torch(report, "ResNet-50", f"resnet50_b{batch}", cam_fn, network, batch, normalization, 1.0)
    return None


def beside_torch(report: Report, what: str, key: str, cam_fn, network, batch: int, normalization, promise: float):
    """A bound `cam_fn` against the forward pass of PyTorch's network, in both of its layouts."""
    import torch

    what = f"{what}, batch {batch}"
    device = torch_device()
    if device is None:
        return report.skip(what, f"JAX computes on {jax.default_backend()}, and this PyTorch cannot")
    torch.set_num_threads(cpu_count())
    torch.backends.cudnn.benchmark = True
    images = photographs(batch)
    mean, std = (np.array(constant, np.float32) for constant in normalization)
    x = torch.from_numpy((images - mean) / std).permute(0, 3, 1, 2)
    on_device = jax.device_put(images)

    def forward(layout):
        own_network = copy.deepcopy(network).eval().to(device, memory_format=layout)
        own_x = x.to(device).contiguous(memory_format=layout)

        def run():
            with torch.inference_mode():
                logits = own_network(own_x)
            if device == "cuda":
                torch.cuda.synchronize()
            return logits

        return run

    functions = {
        "camjax": lambda: cam_fn(on_device),
        "PyTorch": forward(torch.contiguous_format),
        "PyTorch, channels_last": forward(torch.channels_last),
    }
    check_agreement(what, functions["camjax"]().logits, functions["PyTorch"]().cpu().numpy())
    times = interleaved(functions, report.rounds)
    report.add(what, f"camjax {speed(times['camjax'], batch)}")
    for name, bound in (("PyTorch", (">=", promise)), ("PyTorch, channels_last", None)):
        suffix = name.lower().removeprefix("py").replace(", ", "_")
        value = ratio(times[name], times["camjax"])
        report.add("", f"{name} {speed(times[name], batch)}", f"{key}_vs_{suffix}", value, bound)
    return None


def networks(report: Report) -> None:
    """Networks compared with their twins, see `benchmarks.twins`."""
    if reason := missing("torch", "torchvision"):
        return report.skip("Networks", reason)
    from benchmarks.twins import add_twins

    return add_twins(report, photographs(8), max(3, report.rounds // 2))


def check_agreement(what: str, logits, expected) -> None:
    """Raises RuntimeError unless both computed the same; accelerators round matrix products to fewer bits."""
    error = np.abs(np.asarray(logits) - expected).max() / np.abs(expected).max()
    if not error < (1e-3 if jax.default_backend() == "cpu" else 5e-2):
        raise RuntimeError(f"{what}: the logits differ by {error:.1e} of the largest; these are not the same network.")


def call_overhead(report: Report) -> None:
    """What a call costs besides its compute; see the module's docstring."""
    model = WithoutConvolutions(camjax.create_model("efficientnet_lite0", num_classes=2))
    images = jax.device_put(photographs(1))
    cam_fn = camjax.make_cam_fn(model)
    times = interleaved(
        {"make_cam_fn": lambda: cam_fn(images), "cam_fn": lambda: camjax.cam_fn(model, images)}, report.rounds
    )
    overhead, unbound = (1e3 * float(np.median(times[name])) for name in ("make_cam_fn", "cam_fn"))
    arrays = len(jax.tree.leaves(model))
    report.add("Call overhead", f"make_cam_fn {overhead:.2f} ms a call", "call_overhead_ms", overhead, ("<=", 1))
    report.add("", f"cam_fn, with the model's {arrays} arrays, {unbound:.2f} ms", "cam_fn_call_overhead_ms", unbound)


class WithoutConvolutions(nnx.Module):
    """A network with all of another's arrays, from each of which its features read one number."""

    def __init__(self, network):
        self.network = network

    @property
    def head(self):
        """The other's head."""
        return self.network.head

    def features(self, images: jax.Array) -> jax.Array:
        """(B, H, W, 3) -> (B, 1, 1, K)."""
        arrays = [x for x in jax.tree.leaves(self.network) if jnp.issubdtype(x.dtype, jnp.floating)]
        total = sum(x.reshape(-1)[0] for x in arrays) + images[:, 0, 0, 0].astype(jnp.float32)
        return jnp.broadcast_to(total[:, None, None, None], (len(images), 1, 1, self.head.kernel.shape[0]))


def all_maps(report: Report) -> None:
    """The maps of all classes against that of one."""
    images = jax.device_put(photographs(BATCH))
    one, every = lite0_cam_fn(1), lite0_cam_fn(None)
    # A difference of a few percent takes more rounds to show than one of half.
    times = interleaved({"one": lambda: one(images), "every": lambda: every(images)}, 3 * report.rounds)
    what = f"Maps of all 1000 classes against one, batch {BATCH}"
    measured = f"{speed(times['every'], BATCH)} against {speed(times['one'], BATCH)}"
    report.add(what, measured, "all_class_maps_vs_one", ratio(times["every"], times["one"]), ("<=", 1.1))


def localization(report: Report) -> None:
    """What `localize_fn` spends on boxes."""
    images = jax.device_put(photographs(BATCH))
    cam_fn, localize_fn = lite0_cam_fn(TOP_K), camjax.make_localize_fn(lite0(), top_k=TOP_K)
    times = interleaved({"cam": lambda: cam_fn(images), "localize": lambda: localize_fn(images)}, report.rounds)
    per_map = 1e3 * float(np.median(times["localize"] - times["cam"])) / (BATCH * TOP_K)
    what = f"Components and box, ms a map, {BATCH} x {TOP_K} maps"
    measured = f"{speed(times['localize'], BATCH)} against {speed(times['cam'], BATCH)}"
    report.add(what, measured, "localize_ms_per_map", per_map, ("<=", 2))


def exported(report: Report) -> None:
    """A file by `camjax export` against the function of the same network."""
    with tempfile.TemporaryDirectory() as folder:
        camjax.export_model(lite0(), Path(folder, "lite0.camjax"))
        from_file = camjax.load_exported(Path(folder, "lite0.camjax"))
    localize_fn = camjax.make_localize_fn(lite0())
    for batch in (8, 1):
        images = jax.device_put(photographs(batch))
        times = interleaved(
            {"file": lambda images=images: from_file(images), "function": lambda images=images: localize_fn(images)},
            3 * report.rounds,
        )
        what = f"EfficientNet-Lite0 from an exported file, batch {batch}"
        measured = f"{speed(times['file'], batch)} against localize_fn's {speed(times['function'], batch)}"
        report.add(
            what, measured, f"exported_b{batch}_over_localize", ratio(times["file"], times["function"]), ("<=", 1.05)
        )


def explain(report: Report) -> None:
    """`camjax explain` from a cold start."""
    reason = missing("torch", "torchvision", "efficientnet_lite_pytorch", "pytorch_grad_cam")
    times = start_times(max(1, report.rounds // 4), with_torch=not reason)
    times = {name: both[:, 0] for name, both in times.items()}  # by the clock
    for name, seconds in times.items():
        what = "camjax explain, start to figure" if name == "camjax, cold" else ""
        report.add(what, f"{name} {np.median(seconds):.1f} s")
    if reason:
        report.skip("", reason)
    else:
        for start in ("cold", "warm"):
            value = ratio(times["pytorch-grad-cam"], times[f"camjax, {start}"])
            report.add("", f"{start} start against pytorch-grad-cam", f"explain_{start}_vs_grad_cam", value)
    first, second = compiled_programs()
    measured = f"the first start compiles {first} programs, the second {second}"
    report.add("", measured, "explain_second_start_compiles", second, ("<=", 0))


def speed(seconds: np.ndarray, batch: int) -> str:
    """Median of seconds a batch, in words."""
    median = float(np.median(seconds))
    return f"{1e3 * median:.1f} ms ({batch / median:.0f} img/s)"


if __name__ == "__main__":
    main()
