"""The cost of attribution methods compared with pytorch-grad-cam, and the memory of those that perturb.

    python -m benchmarks.attribution [--quick]

prints a table and, last, one JSON line of the figures; the figures come on stderr as they are measured. Ratios are the
other's time over camjax's, the median over rounds in which the two take turns: above 1, camjax is faster.

The networks are EfficientNet-Lite0 with its ImageNet weights and ResNet-50 with random ones, with the same weights on
both sides (`benchmarks.attribution_torch`). camjax goes from decoded photographs, uint8, to finished maps in NumPy:
`camjax.explainer(model.features, model.head)`, and after it, in a separate compiled function, pytorch-grad-cam's
final step: rectified, scaled to 0..1, resized to 224 x 224, scaled again. pytorch-grad-cam gets the photographs as
normalized tensors, and does this step by itself. Both are told the classes. Both sides' maps of the same classes are
compared first, or the figure is not given.

- Gradient methods, and Eigen-CAM, in batches of 8: one class an image, and five. pytorch-grad-cam takes one target an
  image, so that five classes are five calls, and its time for them is five times that of one call (that this holds is a
  figure too); camjax takes all five in one call. Eigen-CAM's map is the same for every class.
- Finer-CAM against Grad-CAM, both camjax's, of five classes: it chooses look-alikes, and explains other scores.
- Folded: camjax with `fold_batchnorm` of the model, as `make_cam_fn` has it.
- Score-CAM and Ablation-CAM of one image, 32 copies at a time on both sides. Both resize masks with half-pixel centers,
  so that the maps are the same; pytorch-grad-cam takes as long with its own way. So that they take seconds, they use an
  earlier layer of fewer channels: Lite0's last block (320) and ResNet-50's first stage (256). A copy costs Score-CAM
  the whole network, for any layer. pytorch-grad-cam's Ablation-CAM runs the whole network for each copy as well,
  with another layer in place of this one; camjax runs what follows the layer. Of Lite0's last feature map (1280) that
  is the pooling and one dense layer, which is measured as well.
- Memory of Score-CAM, Lite0, each in a process of its own: how far its peak rises above what the process held before
  the call, compilation included, for several chunk sizes, images and channels.

The processor must be idle.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import tyro

import camjax
from benchmarks.attribution_torch import CLASSES, Twins, half_pixel_masks, maps_fn, normalized, twins
from benchmarks.cam_throughput import photographs
from benchmarks.generic_features import run_child
from benchmarks.peers import missing
from benchmarks.timing import cpu_count, cpu_name, interleaved, ratio
from camjax.attribution import explain_nnx
from camjax.attribution.methods import METHODS, Needs
from camjax.models.inference_mode import inference_view
from camjax.models.layers import fold_batchnorm

BATCH, FIVE, CHUNK = 8, 5, 32
BY_GRADIENTS = [name for name in CLASSES if METHODS[name].needs is Needs.GRADIENTS]
ONE_CLASS, FIVE_CLASSES, PERTURBING = 2.0, 5.0, 1.2
"""The least ratios that are promised."""

FINER = 1.2
"""The most that Finer-CAM may take, as a factor of Grad-CAM's time."""

GROWTH = 1.1
"""The most that more images or channels may add to the memory of Score-CAM, as a factor."""

TOLERANCE = {
    # pytorch-grad-cam adds a millionth to a denominator that is often smaller than that.
    "gradcam++": 0.2,
}
"""Largest difference of two maps in 0..1, of a method that pytorch-grad-cam defines otherwise; 0.001 of all others."""

_SCORE_CAM = """
import sys
from pathlib import Path
import camjax
from benchmarks.cam_throughput import photographs
from camjax.attribution import explain_nnx

chunk_size, count, last = map(int, sys.argv[1:])
model = camjax.load_model("efficientnet_lite0")
explain = explain_nnx(model, "top" if last else "blocks.15")
images = photographs(count)
explain(images, [0] * count, "gradcam").maps.block_until_ready()
before, after_first = memory("VmRSS"), []
Path("/proc/self/clear_refs").write_text("5")  # resets the peak

def progress(done, total):
    if not after_first:
        after_first.append(memory("VmHWM"))

explain(images, [0] * count, "scorecam", chunk_size=chunk_size, progress=progress).maps.block_until_ready()
print(memory("VmHWM") - before, memory("VmHWM") - after_first[0])
"""


class Report:
    """The rows of the table and the figures of the JSON line, each said on stderr as it comes."""

    def __init__(self):
        self.rows: list[tuple[str, str, str, str]] = []
        self.figures: dict[str, float] = {}

    def add(self, what: str, measured: str, key: str, value: float, promise: tuple[str, float] | None = None) -> None:
        """Adds a figure. promise: (">=" or "<=", bound)."""
        verdict = ""
        if promise:
            kept = value >= promise[1] if promise[0] == ">=" else value <= promise[1]
            verdict = f"{promise[0]} {promise[1]:g}, {'kept' if kept else 'NOT KEPT'}"
        self.rows.append((what, measured, f"{value:.3g}", verdict))
        self.figures[key] = round(value, 4)
        print(": ".join(filter(None, (what, measured, f"{value:.3g}", verdict))), file=sys.stderr, flush=True)

    def skip(self, what: str, reason: str) -> None:
        """Says why a section is missing."""
        self.rows.append((what, f"skipped: {reason}", "", ""))

    def markdown(self) -> str:
        """The table."""
        lines = [("what", "measured", "figure", "promised"), ("---",) * 4, *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(quick: bool = False) -> None:
    """The cost of attribution methods compared with pytorch-grad-cam, and the memory of those that perturb.

    Args:
      quick: One round of each, in place of two or three.
    """
    report = Report()
    print(f"{cpu_name()}, {cpu_count()} cores, {cpu_count()} threads each, load average {os.getloadavg()[0]:.1f}")
    if reason := missing("torch", "torchvision", "efficientnet_lite_pytorch", "pytorch_grad_cam"):
        report.skip("Beside pytorch-grad-cam", reason)
    else:
        for name, pair in twins().items():
            gradient_methods(report, name, pair, rounds=1 if quick else 3)
            finer(report, name, pair, rounds=3 if quick else 9)
            perturbing_methods(report, name, pair, rounds=1 if quick else 2)
    if Path("/proc/self/clear_refs").exists():
        memory(report)
    else:
        report.skip("Memory of Score-CAM", "it is read from Linux's /proc")
    print(f"Load average at the end {os.getloadavg()[0]:.1f}")
    print(report.markdown())
    print(json.dumps(report.figures))


def gradient_methods(report: Report, name: str, pair: Twins, rounds: int) -> None:
    """All methods of one network that are functions of features and gradients."""
    folded = inference_view(fold_batchnorm(pair.model))
    explainers = {
        "camjax": camjax.explainer(pair.model.features, pair.model.head),
        "camjax, folded": camjax.explainer(folded.features, folded.head),
    }
    for batch in (1, BATCH):
        gradient_method(report, name, pair, "gradcam", batch, explainers, rounds)
    del explainers["camjax, folded"]
    for method in BY_GRADIENTS[1:]:
        gradient_method(report, name, pair, method, BATCH, explainers, rounds)


def gradient_method(
    report: Report, name: str, pair: Twins, method: str, batch: int, explainers: dict[str, Callable], rounds: int
) -> None:
    """One of them at one batch size, with one class an image and with five."""
    images = photographs(batch)
    x = normalized(pair.model, images)
    class_ids = top_classes(pair, x)
    peer = maps_fn(method, pair.network, pair.last, x)
    functions = {"one call": lambda: peer(class_ids[:, 0])}
    if (method, batch) == ("gradcam", 1):
        functions["five calls"] = lambda: [peer(class_ids[:, i]) for i in range(FIVE)]
    for who, explain in explainers.items():
        for count in (1,) if method == "eigencam" else (1, FIVE):
            functions[f"{who}, {count}"] = ours(explain, method, images, class_ids[:, :count])
        check(f"{name}, {method}", method, explain(images, class_ids[:, :1], method).maps, functions["one call"]())
    times = interleaved(functions, rounds)
    key = f"{name}_b{batch}_{method}"
    for function in list(functions):
        who, _, count = function.rpartition(", ")
        if not who:
            continue
        theirs = int(count) * times["one call"]
        report.add(
            f"{name}, batch {batch}, {method}, {count} an image",
            f"{who} {in_words(times[function])}, pytorch-grad-cam {in_words(theirs)}",
            f"{key}_{count}" + ("_folded" if "folded" in who else ""),
            ratio(theirs, times[function]),
            (">=", FIVE_CLASSES if int(count) == FIVE else ONE_CLASS),
        )
    if "five calls" in functions:
        value = ratio(times["five calls"], FIVE * times["one call"])
        report.add(f"{name}, batch {batch}, {method}", "five calls over five times one call", f"{key}_calls", value)


def finer(report: Report, name: str, pair: Twins, rounds: int) -> None:
    """Finer-CAM beside Grad-CAM, of the five classes of the largest outputs."""
    images, explain = photographs(BATCH), camjax.explainer(pair.model.features, pair.model.head)
    methods = ("gradcam", "finercam", "finercam_mean")
    functions = {m: functools.partial(explain, images, None, m, top_k=FIVE) for m in methods}
    times = interleaved(functions, rounds)
    for method in methods[1:]:
        report.add(
            f"{name}, batch {BATCH}, {method}, {FIVE} an image",
            f"{in_words(times[method])}, gradcam {in_words(times['gradcam'])}",
            f"{name}_b{BATCH}_{method}_{FIVE}_over_gradcam",
            ratio(times[method], times["gradcam"]),
            ("<=", FINER),
        )


def perturbing_methods(report: Report, name: str, pair: Twins, rounds: int) -> None:
    """Score-CAM and Ablation-CAM of one network and one image."""
    early = {
        "camjax": explain_nnx(pair.model, pair.early_name),
        "camjax, folded": explain_nnx(fold_batchnorm(pair.model), pair.early_name),
    }
    baseline = np.float32(pair.model.mean)  # which a normalized image has where a mask multiplies it by 0
    perturbing_method(
        report, f"{name}, {pair.early_name}", pair, "scorecam", pair.early, early, rounds, baseline=baseline
    )
    if pair.early_is_rectified:
        perturbing_method(report, f"{name}, {pair.early_name}", pair, "ablationcam", pair.early, early, rounds)
    else:
        last = {"camjax": camjax.explainer(pair.model.features, pair.model.head)}
        perturbing_method(report, f"{name}, last", pair, "ablationcam", pair.last, last, rounds=1)


def perturbing_method(
    report: Report, what: str, pair: Twins, method: str, layer, explainers: dict[str, Callable], rounds: int, **options
) -> None:
    """One of them, of one layer."""
    images = photographs(1)
    x = normalized(pair.model, images)
    class_ids = top_classes(pair, x)[:, :1]
    peer = maps_fn(method, pair.network, layer, x, batch_size=CHUNK)
    functions, maps = {"pytorch-grad-cam": lambda: peer(class_ids[:, 0])}, {}
    for who, explain in explainers.items():
        functions[who] = ours(explain, method, images, class_ids, chunk_size=CHUNK, **options)
        maps[who] = explain(images, class_ids, method, chunk_size=CHUNK, **options).maps  # compiled from here on
    with half_pixel_masks():
        times, results = turns(functions, rounds)
    for who in explainers:
        check(f"{what}, {method}", method, maps[who], results["pytorch-grad-cam"])
    for who in explainers:
        report.add(
            f"{what}, batch 1, {method}",
            f"{who} {in_words(times[who])}, pytorch-grad-cam {in_words(times['pytorch-grad-cam'])}",
            "_".join(what.replace(".", "_").split(", ")) + f"_{method}" + ("_folded" if "folded" in who else ""),
            ratio(times["pytorch-grad-cam"], times[who]),
            (">=", PERTURBING),
        )


def memory(report: Report) -> None:
    """How far Score-CAM's peak rises with chunk size, images and channels."""
    grown = {}
    for setting in ((8, 1, 0), (32, 1, 0), (128, 1, 0), (32, 4, 0), (32, 1, 1)):
        chunk_size, count, last = setting
        channels = 1280 if last else 320
        grown[setting], later = run_child(_SCORE_CAM, *setting)
        report.add(
            f"Score-CAM, chunk_size {chunk_size}, {count} images, {channels} channels",
            f"peak rises by {grown[setting] / 1e6:.0f} MB, by {later / 1e6:.0f} MB of these after the first chunk; MB",
            f"scorecam_chunk{chunk_size}_images{count}_channels{channels}_mb",
            grown[setting] / 1e6,
        )
    more_images, more_channels = (grown[setting] / grown[32, 1, 0] for setting in ((32, 4, 0), (32, 1, 1)))
    report.add("", "memory of four images over that of one", "scorecam_memory_images", more_images, ("<=", GROWTH))
    report.add(
        "", "memory of 1280 channels over that of 320", "scorecam_memory_channels", more_channels, ("<=", GROWTH)
    )


def ours(explain: Callable, method: str, images: np.ndarray, class_ids: np.ndarray, **options) -> Callable:
    """A function that makes camjax's finished maps, (B, N, H, W) in NumPy."""
    return lambda: np.asarray(finished(explain(images, class_ids, method, **options).maps, images.shape[1:3]))


@functools.partial(jax.jit, static_argnums=1)
def finished(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """pytorch-grad-cam's final step: (B, N, h, w) maps -> (B, N, H, W) in 0..1."""
    return camjax.normalize_map(camjax.resize_map(camjax.normalize_map(jax.nn.relu(maps)), size))


def check(what: str, method: str, maps: jax.Array, theirs: np.ndarray) -> None:
    """Raises RuntimeError unless raw maps (B, 1, h, w) are, when finished, (B, H, W) of the other side."""
    # The sign of a principal component is arbitrary; pytorch-grad-cam leaves it to chance.
    signs = (1, -1) if method in ("eigencam", "eigengradcam") else (1,)
    finishes = np.stack([np.asarray(finished(sign * maps, theirs.shape[1:]))[:, 0] for sign in signs])
    error = np.abs(finishes - theirs).max((2, 3)).min(0).max()
    if not error <= TOLERANCE.get(method, 1e-3):
        raise RuntimeError(f"{what}: maps in 0..1 differ by {error:.4f}; these are not the same maps.")
    print(f"{what}: maps in 0..1 agree to {error:.1e}", file=sys.stderr, flush=True)


def top_classes(pair: Twins, x) -> np.ndarray:
    """(B, FIVE) the classes of the largest outputs, of normalized images."""
    import torch

    with torch.inference_mode():
        return pair.network(x).topk(FIVE)[1].numpy().astype(np.int32)


def turns(functions: dict[str, Callable], rounds: int) -> tuple[dict[str, np.ndarray], dict]:
    """As `interleaved`, for functions that take many seconds: one call in each turn. Their last results as well."""
    times, results = {name: np.zeros(rounds) for name in functions}, {}
    for i in range(rounds):
        for name in list(functions)[:: 1 if i % 2 == 0 else -1]:
            start = time.perf_counter()
            results[name] = functions[name]()
            times[name][i] = time.perf_counter() - start
    return times, results


def in_words(seconds: np.ndarray) -> str:
    """The median."""
    return f"{np.median(seconds):.3g} s"


if __name__ == "__main__":
    tyro.cli(main)
