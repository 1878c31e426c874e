"""What `benchmarks.accelerator` measures; its docstring says how to read the figures."""

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

import camjax
from benchmarks.accelerator_profile import print_kernels
from benchmarks.accelerator_report import Report
from benchmarks.peers import import_torchvision, missing
from benchmarks.timing import cpu_count, cpu_name, interleaved, ratio
from camjax.models import create_model
from camjax.training import Recipe, TrainState, fit
from camjax.training.parallel import parallel_train_step, put_batch, replicate
from camjax.training.step import recipe_step

TOP_K = 5
PEAK = 790e12
"""bfloat16 operations per second of one H100's matrix units, as measured; `peak` measures them again."""

MULTIPLY_ADDS = {"resnet50": 4.09e9, "resnet18": 1.81e9, "efficientnet_lite0": 0.407e9}
"""Of one image of 224 x 224 pixels, as torchvision and Google count them; a training step has three times as many."""


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    network: str = "resnet50"
    small_network: str = "efficientnet_lite0"
    dtype: str = "bfloat16"
    side: int = 224
    one: int = 1
    some: int = 32
    many: int = 256
    maps: tuple[int, ...] = (1, 32, 160)
    matrix: int = 8192
    rounds: int = 8
    ahead: int = 10  # calls that are started before the last one is waited for, where a figure says "in flight"
    fit_steps: tuple[int, int] = (20, 60)
    dry_run: bool = False


FULL = Sizes()
TINY = Sizes("resnet18", "resnet18", "float32", 32, 2, 2, 2, (1, 2), 64, 1, 2, (5, 7), True)

ALONE = replace(TINY, network="small_gap", small_network="small_gap")
"""Where there is no network of PyTorch's, which has none as small."""


def has_torch() -> bool:
    return not missing("torch", "torchvision")


def environment(report: Report, sizes: Sizes) -> None:
    """Hardware, versions and settings."""
    report.line("JAX", f"{jax.__version__}, flax {flax.__version__}, on {len(jax.devices())} x {device_name()}")
    report.line("host", f"{cpu_name()}, {cpu_count()} cores; XLA_FLAGS={os.environ.get('XLA_FLAGS', '')!r}")
    kept = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if kept and os.path.isdir(kept) and os.listdir(kept):
        report.line("compiled programs", f"{len(os.listdir(kept))} kept from before: first calls are shorter than anew")
    if has_torch():
        import torch

        from benchmarks.accelerator_torch import DEVICE

        torch.set_num_threads(1 if sizes.dry_run else cpu_count())
        name = torch.cuda.get_device_name() if DEVICE == "cuda" else DEVICE
        report.line("PyTorch", f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}, on {name}")
        report.line(
            "float32",
            f"PyTorch: TF32 convolutions {torch.backends.cudnn.allow_tf32}, TF32 products "
            f"{torch.backends.cuda.matmul.allow_tf32}; JAX: precision "
            f"{jax.config.jax_default_matmul_precision or 'default'} (TF32 convolutions), heads and maps 'highest'",
        )
    else:
        report.line("PyTorch", f"not measured: {missing('torch', 'torchvision')}")


def tiny(section: str) -> Sizes:
    """Those of a section in a dry run."""
    return TINY if has_torch() and section in ("cam", "localize", "train", "lite0", "lite0_train") else ALONE


def device_name() -> str:
    return jax.devices()[0].device_kind


def peak(report: Report, sizes: Sizes) -> None:
    """The device's ceilings: a matrix product, a copy, and what a call costs."""
    n = sizes.matrix
    a, b = (jax.random.normal(key, (n, n), jnp.bfloat16) for key in jax.random.split(jax.random.key(0)))
    product = jax.jit(jnp.matmul)
    functions = {"JAX": ahead(lambda: product(a, b), sizes.ahead)}
    if has_torch():
        import torch

        from benchmarks.accelerator_torch import DEVICE, repeated

        x, y = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
        functions["PyTorch"] = repeated(lambda: x @ y, sizes.ahead)
    rates = {name: sizes.ahead * 2 * n**3 / np.median(t) for name, t in interleaved(functions, sizes.rounds).items()}
    report.line(
        f"matrix product, bfloat16, {n}^3",
        ", ".join(f"{name} {rate / 1e12:.1f} TFLOP/s" for name, rate in rates.items()),
        **{name.lower(): rate for name, rate in rates.items()},
    )
    if not sizes.dry_run:
        measured_peak.append(max(rates.values()))
    numbers = jnp.ones((sizes.matrix, 8 * sizes.matrix), jnp.float32)
    copy = jax.jit(lambda x: x * 2)
    rate = (
        sizes.ahead
        * 2
        * numbers.nbytes
        / np.median(interleaved({"": ahead(lambda: copy(numbers), sizes.ahead)}, sizes.rounds)[""])
    )
    report.line("copy on the device, bytes read and written", f"{rate / 1e12:.2f} TB/s", bytes_per_second=rate)
    one = jnp.ones(())
    times = interleaved({"waited": lambda: copy(one), "ahead": ahead(lambda: copy(one), sizes.ahead)}, sizes.rounds)
    waited, started = np.median(times["waited"]), np.median(times["ahead"]) / sizes.ahead
    report.line(
        "a call that computes nothing",
        f"{1e6 * waited:.0f} us waited for, {1e6 * started:.0f} us each of {sizes.ahead} in flight",
        waited=waited,
        in_flight=started,
    )


measured_peak: list[float] = []


def cam(report: Report, sizes: Sizes) -> None:
    """Logits and the map of the top class, at feature size."""
    cases = (
        ("bfloat16", sizes.some),
        ("float32", sizes.some),
        ("bfloat16", sizes.many),
        ("bfloat16", sizes.one),
        ("float32", sizes.many),
        ("float32", sizes.one),
    )
    for dtype, batch in cases[: 2 if sizes.dry_run else None]:
        if report.fits(f"{sizes.network} CAM, {dtype}, batch {batch}", 25):
            forward(report, sizes, sizes.network, dtype, batch)


def forward(report: Report, sizes: Sizes, name: str, dtype: str, batch: int) -> None:
    """A line of `make_cam_fn` against the same function of PyTorch, compiled."""
    what = f"{name} CAM, {dtype}, batch {batch}"
    images = random_images(sizes, batch)
    network, model = networks(name, dtype, sizes.side)
    cam_fn, on_device = camjax.make_cam_fn(model), jax.device_put(images)
    ours = Side("camjax", lambda: cam_fn(on_device))
    if network is None:
        return alone(report, sizes, what, ours, batch)
    from benchmarks import accelerator_torch as peer

    images = peer.to_device(images)
    function = peer.compiled(peer.Cam(network, model, dtype), mode="reduce-overhead", dry_run=sizes.dry_run)
    theirs = Side("torch.compile", inference(lambda: function(images)), peer.repeated)
    difference = differences(ours.first(), [x.float().cpu().numpy() for x in theirs.first()])
    return compare(report, sizes, what, ours, theirs, batch, difference)


def localize(report: Report, sizes: Sizes) -> None:
    """The maps of five classes and their boxes."""
    network, model = networks(sizes.network, "float32", sizes.side)
    localize_fn = camjax.make_localize_fn(model, top_k=TOP_K)
    for batch in dict.fromkeys((sizes.some, sizes.one)):
        what = f"{sizes.network}, {TOP_K} maps and boxes, float32, batch {batch}"
        if not report.fits(what, 20):
            continue
        images = random_images(sizes, batch)
        on_device = jax.device_put(images)
        ours = Side("camjax", lambda on_device=on_device: localize_fn(on_device))
        found = jax.device_get(ours.first())
        if network is None:
            alone(report, sizes, what, ours, batch)
            continue
        from benchmarks import accelerator_torch as peer

        def own_way(images, what=what, ours=ours, found=found):
            """PyTorch's program written for this by hand: maps resized on the device, boxes by OpenCV on the host."""
            size = (sizes.side, sizes.side)
            function = peer.compiled(
                peer.Cam(network, model, "float32", TOP_K, size),
                mode="reduce-overhead",
                dry_run=sizes.dry_run,
            )

            def run():
                maps = function(images)[2]
                return peer.boxes_of(maps.reshape(-1, *size).cpu().numpy())

            theirs = Side("torch.compile by hand + OpenCV", inference(run), peer.repeated)
            agree = same_boxes(found.boxes, theirs.first())
            compare(report, sizes, what, ours, theirs, len(images), agree)

        guarded(report, what, lambda: own_way(peer.to_device(images)))  # noqa: B023
        guarded(report, what, lambda: against_grad_cam(report, sizes, what, ours, found, images))  # noqa: B023


def against_grad_cam(report: Report, sizes: Sizes, what: str, ours: "Side", found, images: np.ndarray) -> None:
    """The same with pytorch-grad-cam, which takes one class an image and gives maps on the host."""
    if reason := missing("pytorch_grad_cam"):
        return report.line(f"{what}, against pytorch-grad-cam", f"not run: {reason}")
    import copy

    import torch

    from benchmarks import accelerator_torch as peer
    from benchmarks.grad_cam import check_maps, grad_cam

    network, model = networks(sizes.network, "float32", sizes.side)
    network = copy.deepcopy(network).eval().to(peer.DEVICE, memory_format=torch.channels_last)
    mean, std = (np.array(constant, np.float32) for constant in (model.mean, model.std))
    x = peer.to_device((images - mean) / std).permute(0, 3, 1, 2)
    run_grad_cam, maps = grad_cam(network, network.layer4[-1], x, found.class_ids)
    if not sizes.dry_run:  # maps of one cell
        check_maps(found.maps, maps)
    theirs = Side("pytorch-grad-cam + OpenCV", lambda: peer.boxes_of(np.asarray(run_grad_cam())), peer.repeated)
    return compare(report, sizes, what, ours, theirs, len(images), same_boxes(found.boxes, theirs.first()))


def components(report: Report, sizes: Sizes) -> None:
    """`largest_component_box` alone, on regions of random smooth maps."""
    box_fn = jax.jit(camjax.largest_component_box)
    for count in sizes.maps:
        maps = np.random.default_rng(0).normal(size=(count, 7, 7)).astype(np.float32)
        maps = camjax.resize_map(maps, (sizes.side, sizes.side))
        masks = jax.block_until_ready(maps > 0.2 * maps.max((1, 2), keepdims=True))
        ours = Side("camjax", lambda masks=masks: box_fn(masks))
        what = f"component and box, {count} maps of {sizes.side} x {sizes.side}"
        if missing("cv2", "torch"):
            alone(report, sizes, what, ours, count)
            continue
        from benchmarks import accelerator_torch as peer

        on_host = np.asarray(masks)
        theirs = Side("OpenCV, masks on the host", lambda on_host=on_host: peer.opencv_boxes(on_host), peer.repeated)
        boxes, _ = ours.first()
        compare(report, sizes, what, ours, theirs, count, same_boxes(boxes, theirs.first()), unit="maps")


def train(report: Report, sizes: Sizes) -> None:
    """A training step with all of its parts."""
    step_beside_torch(report, sizes, sizes.network, sizes.dtype, sizes.many)


def lite0(report: Report, sizes: Sizes) -> None:
    """The small network's forward pass."""
    for batch in {sizes.some, sizes.many}:
        guarded(report, "forward", lambda: forward(report, sizes, sizes.small_network, sizes.dtype, batch))  # noqa: B023


def lite0_train(report: Report, sizes: Sizes) -> None:
    """The small network's training step."""
    step_beside_torch(report, sizes, sizes.small_network, sizes.dtype, sizes.many)


def step_beside_torch(report: Report, sizes: Sizes, name: str, dtype: str, batch: int) -> None:
    """A line of camjax's step against PyTorch's, images and labels on the device."""
    what = f"{name} train step, {dtype}, batch {batch}"
    images, labels = random_images(sizes, batch), np.arange(batch, dtype=np.int32) % 1000
    network, model = networks(name, dtype, sizes.side)
    recipe = recipe_of(batch)
    ours = Side("camjax", own_step(model, recipe, images, labels))
    ours.first()
    if network is None:
        times = alone(report, sizes, what, ours, batch)
    else:
        from benchmarks import accelerator_torch as peer

        compile_function = functools.partial(peer.compiled, mode="default", dry_run=sizes.dry_run)
        theirs = Side(
            "torch.compile",
            peer.train_step(
                network,
                model,
                recipe,
                dtype,
                compile_function,
                peer.to_device(images),
                peer.to_device(labels.astype(np.int64)),
            ),
            peer.repeated,
        )
        times = compare(report, sizes, what, ours, theirs, batch)
    step_seconds[(name, dtype, batch)] = times["camjax"]
    if name not in MULTIPLY_ADDS:
        return
    operations = 3 * 2 * MULTIPLY_ADDS[name] * (sizes.side / 224) ** 2 * batch
    best = max(measured_peak, default=PEAK)
    for who, seconds in times.items():
        rate = operations / seconds
        report.line(
            f"{what}, {who}",
            f"{batch / seconds:.0f} images/s, {rate / 1e12:.1f} TFLOP/s of the model's own operations: "
            f"{rate / PEAK:.1%} of {PEAK / 1e12:.0f}, {rate / best:.1%} of the product measured",
            images_per_second=batch / seconds,
            share_of_peak=rate / PEAK,
        )


step_seconds: dict[tuple[str, str, int], float] = {}


def recipe_of(batch: int) -> Recipe:
    """A constant learning rate: one with a schedule would be another program for each number of steps."""
    return Recipe(steps=1000, batch_size=batch, learning_rate=0.01, decay="constant")


def own_step(model, recipe: Recipe, images: np.ndarray, labels: np.ndarray, *, jit: bool = False) -> Callable:
    """A function that takes one step from the state of the step before, and returns its metrics."""
    state = TrainState.create(jax.tree.map(jnp.copy, model), recipe)
    batch = {"image": images, "label": labels}
    if jit:
        step, states, batch = jax.jit(recipe_step(recipe), donate_argnums=0), [state], jax.device_put(batch)
    else:
        step, states, batch = parallel_train_step(recipe), [replicate(state)], put_batch(batch)

    def run():
        states[0], metrics = step(states[0], batch)
        return metrics

    return run


def fit_beside_step(report: Report, sizes: Sizes) -> None:
    """The whole loop of `fit`, images in memory, against its bare step."""
    name, batch, (first, last) = sizes.network, sizes.many, sizes.fit_steps
    _, model = networks(name, sizes.dtype, sizes.side)
    seconds = step_seconds.get((name, sizes.dtype, batch))
    if seconds is None:
        run = own_step(model, recipe_of(batch), random_images(sizes, batch), np.arange(batch, dtype=np.int32))
        run()
        seconds = np.median(interleaved({"": ahead(run, sizes.ahead)}, sizes.rounds)[""]) / sizes.ahead
    recipe = Recipe(steps=last + 5, batch_size=batch, learning_rate=0.01, decay="constant")
    sources = {"batches in memory": in_memory(sizes, batch)}
    if reason := missing("grain"):
        report.line(f"fit, {name}, examples by Grain", f"not run: {reason}")
    else:
        sources["examples in memory, by Grain's threads"] = examples(sizes, batch, model.head.num_classes)

    def measure(what: str, source, read: list[float]):
        fit(model, source, recipe, progress=False)
        # When a batch was read: the loop is a fixed number of batches ahead, so that a span of reads is one of steps.
        spent = (read[last * batch - 1] - read[first * batch - 1]) / (last - first)
        report.line(
            f"fit, {name}, {sizes.dtype}, batch {batch}, {what}",
            f"{batch / spent:.0f} images/s; the bare step {batch / seconds:.0f}: {1 - seconds / spent:.1%} outside it",
            images_per_second=batch / spent,
            outside=1 - seconds / spent,
        )

    for what, (source, read) in sources.items():
        guarded(report, f"fit, {name}, {what}", lambda: measure(what, source, read))  # noqa: B023


def in_memory(sizes: Sizes, batch: int):
    """Batches that are there, as `camjax.data.Batches`, and the times at which each image was read."""
    images, labels, read = random_images(sizes, batch), np.arange(batch, dtype=np.int32) % 1000, []

    class Watched:
        def __iter__(self):
            for _ in range(100):
                read.extend([time.perf_counter()] * batch)
                yield images, labels

    return camjax.data.Batches(Watched()), read


def examples(sizes: Sizes, batch: int, classes: int):
    """`FakeImages`, and the times at which each was read."""
    read: list[float] = []

    class Watched(camjax.data.FakeImages):
        def __getitem__(self, index):
            read.append(time.perf_counter())
            return super().__getitem__(index)

    return Watched(10 * batch, num_classes=classes, image_size=(sizes.side, sizes.side)), read


CONVOLUTIONS = (
    # side, channels in, channels out, kernel, stride: those of which ResNet-50 has most, and its stem
    (56, 64, 64, 3, 1),
    (14, 256, 256, 3, 1),
    (28, 512, 128, 1, 1),
    (14, 256, 1024, 1, 1),
    (224, 3, 64, 7, 2),
)


def convolutions(report: Report, sizes: Sizes) -> None:
    """Bare convolutions in bfloat16 and their gradients, in both layouts, 1x1 as a product, and PyTorch's."""
    batch = sizes.many
    for side, k_in, k_out, kernel, stride in CONVOLUTIONS[: 2 if sizes.dry_run else None]:
        side = min(side, sizes.side)
        what = f"convolution {kernel}x{kernel}/{stride}, {side}, {k_in} -> {k_out}, bfloat16, batch {batch}"
        if not report.fits(what, 15):
            continue
        x = jax.random.normal(jax.random.key(0), (batch, side, side, k_in), jnp.bfloat16)
        w = jax.random.normal(jax.random.key(1), (kernel, kernel, k_in, k_out), jnp.bfloat16) / kernel
        pads = ((kernel // 2,) * 2,) * 2

        def convolve(x, w, numbers, stride=stride, pads=pads):
            return lax.conv_general_dilated(x, w, (stride,) * 2, pads, dimension_numbers=numbers)

        layouts = {
            "NHWC": (functools.partial(convolve, numbers=("NHWC", "HWIO", "NHWC")), x, w),
            "NCHW": (
                functools.partial(convolve, numbers=("NCHW", "OIHW", "NCHW")),
                x.transpose(0, 3, 1, 2),
                w.transpose(3, 2, 0, 1),
            ),
        }
        if kernel == 1 and stride == 1:
            layouts["product"] = (lambda x, w: x @ w[0, 0], x, w)
        functions = {}
        for layout, (function, *arguments) in layouts.items():
            out = jax.eval_shape(function, *arguments)
            gradient = jnp.ones(out.shape, out.dtype)
            forward = jax.jit(function)
            backward = jax.jit(lambda x, w, g, function=function: jax.vjp(function, x, w)[1](g))
            functions[f"{layout} forward"] = ahead(lambda f=forward, a=arguments: f(*a), sizes.ahead)
            functions[f"{layout} gradients"] = ahead(lambda f=backward, a=(*arguments, gradient): f(*a), sizes.ahead)
        if has_torch():
            functions |= torch_convolution(
                np.asarray(x, np.float32), np.asarray(w, np.float32), stride, kernel // 2, sizes.ahead
            )
        operations = 2 * batch * (side // stride) ** 2 * kernel**2 * k_in * k_out
        times = {
            name: np.median(t) / sizes.ahead for name, t in interleaved(functions, max(1, sizes.rounds // 2)).items()
        }
        report.line(
            what,
            "; ".join(
                f"{name} {1e3 * t:.3f} ms ({(1 + name.endswith('gradients')) * operations / t / 1e12:.0f} TFLOP/s)"
                for name, t in times.items()
            ),
            **times,
        )


def torch_convolution(x: np.ndarray, w: np.ndarray, stride: int, padding: int, calls: int) -> dict[str, Callable]:
    """PyTorch's convolution, channels_last, and its gradients."""
    import torch

    from benchmarks.accelerator_torch import DEVICE, repeated

    x, w = (
        torch.from_numpy(a).permute(order).to(DEVICE, torch.bfloat16, memory_format=torch.channels_last)
        for a, order in ((x, (0, 3, 1, 2)), (w, (3, 2, 0, 1)))
    )
    run = functools.partial(torch.nn.functional.conv2d, x, w, stride=stride, padding=padding)
    gradient = torch.ones_like(run())

    def backward():
        torch.ops.aten.convolution_backward(
            gradient, x, w, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [True, True, False]
        )

    return {"PyTorch forward": repeated(run, calls), "PyTorch gradients": repeated(backward, calls)}


def profile(report: Report, sizes: Sizes) -> None:
    """Where the device's time goes, kernel by kernel."""
    _, model = networks(sizes.network, sizes.dtype, sizes.side)
    cam_fn, images = camjax.make_cam_fn(model), jax.device_put(random_images(sizes, sizes.some))
    what = f"{sizes.network} CAM, {sizes.dtype}, batch {sizes.some}"
    guarded(report, what, lambda: print_kernels(report, what, lambda: cam_fn(images)))
    batch = sizes.many
    labels = np.arange(batch, dtype=np.int32) % 1000
    step = own_step(model, recipe_of(batch), random_images(sizes, batch), labels)
    print_kernels(report, f"{sizes.network} train step, {sizes.dtype}, batch {batch}", step)


def variants(report: Report, sizes: Sizes) -> None:
    """What might be faster: a training step by `jit` with donation, in turns with camjax's, by `pmap`."""
    _, model = networks(sizes.network, sizes.dtype, sizes.side)
    images, labels = random_images(sizes, sizes.many), np.arange(sizes.many, dtype=np.int32) % 1000
    steps = {
        name: own_step(model, recipe_of(sizes.many), images, labels, jit=name == "jit") for name in ("pmap", "jit")
    }
    jax.block_until_ready([step() for step in steps.values()])
    times = interleaved({name: ahead(step, sizes.ahead) for name, step in steps.items()}, sizes.rounds)
    milliseconds = {name: 1e3 * float(np.median(t)) / sizes.ahead for name, t in times.items()}
    value = ratio(times["pmap"], times["jit"])
    report.line(
        "train step by jit with donation, in place of pmap",
        f"{milliseconds['jit']:.3f} ms, now {milliseconds['pmap']:.3f}: {value:.3f} times as fast",
        **milliseconds,
        ratio=value,
    )


class Side:
    """One of those that are compared: a function, how long its first call took, and how it waits for its work."""

    def __init__(self, name: str, function: Callable, repeated: Callable | None = None):
        self.name, self.function = name, function
        self.repeated = ahead if repeated is None else repeated
        self.first_seconds: float | None = None

    def first(self):
        """Calls the function, which compiles at its first call, and waits for the result."""
        start = time.perf_counter()
        result = []
        once = self.repeated(lambda: result.append(self.function()), 1)
        jax.block_until_ready((once(), result))
        if self.first_seconds is None:
            self.first_seconds = time.perf_counter() - start
        return result[0]


def ahead(function: Callable, calls: int) -> Callable:
    """A function that makes so many calls and returns the last one's result, which comes last on the device."""
    return lambda: [function() for _ in range(calls)][-1]


def compare(
    report: Report,
    sizes: Sizes,
    what: str,
    ours: Side,
    theirs: Side,
    batch: int,
    note: str = "",
    *,
    unit: str = "images",
) -> dict[str, float]:
    """Measures both in turns, prints a line, and returns the seconds of each with calls in flight."""
    for side in (ours, theirs):
        if side.first_seconds is None:
            side.first()
    counts = {"waited": 1, "ahead": sizes.ahead}
    times = interleaved(
        {
            (side.name, how): side.repeated(side.function, count)
            for side in (ours, theirs)
            for how, count in counts.items()
        },
        sizes.rounds,
    )
    seconds = {(name, how): float(np.median(t)) / counts[how] for (name, how), t in times.items()}
    ratios = {how: ratio(times[theirs.name, how], times[ours.name, how]) for how in counts}
    parts = [
        f"{side.name} {1e3 * seconds[side.name, 'waited']:.3f} ms, {sizes.ahead} in flight "
        f"{1e3 * seconds[side.name, 'ahead']:.3f} ms ({batch / seconds[side.name, 'ahead']:.0f} {unit}/s), "
        f"first call {side.first_seconds:.1f} s"
        for side in (ours, theirs)
    ]
    report.line(
        f"{what}, against {theirs.name}",
        f"RATIO {ratios['waited']:.2f}, in flight {ratios['ahead']:.2f}; {'; '.join([*parts, *filter(None, [note])])}",
        ratio=ratios["waited"],
        ratio_in_flight=ratios["ahead"],
        seconds=seconds[ours.name, "waited"],
        seconds_in_flight=seconds[ours.name, "ahead"],
        other_seconds=seconds[theirs.name, "waited"],
        other_seconds_in_flight=seconds[theirs.name, "ahead"],
        first_call=ours.first_seconds,
        other_first_call=theirs.first_seconds,
    )
    return {side.name: seconds[side.name, "ahead"] for side in (ours, theirs)}


def alone(report: Report, sizes: Sizes, what: str, side: Side, batch: int) -> dict[str, float]:
    """Measures camjax where there is nothing to compare with."""
    if side.first_seconds is None:
        side.first()
    times = interleaved(
        {"one": side.repeated(side.function, 1), "more": ahead(side.function, sizes.ahead)}, sizes.rounds
    )
    one, more = float(np.median(times["one"])), float(np.median(times["more"])) / sizes.ahead
    report.line(
        what,
        f"{1e3 * one:.3f} ms, {sizes.ahead} in flight {1e3 * more:.3f} ms ({batch / more:.0f} /s), first call "
        f"{side.first_seconds:.1f} s; nothing of PyTorch's to compare with is installed",
        seconds=one,
        seconds_in_flight=more,
        first_call=side.first_seconds,
    )
    return {side.name: more}


def guarded(report: Report, what: str, run: Callable[[], object]) -> None:
    """Prints what goes wrong in a part of a section, so that the next part goes on."""
    try:
        run()
    except Exception as error:
        report.line(what, f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:600]}")


def inference(function: Callable) -> Callable:
    """A function of PyTorch, without gradients."""
    import torch

    return torch.inference_mode()(function)


def differences(ours, theirs) -> str:
    """Says how far logits and maps are apart, in shares of the largest; an error if these are not the same network."""
    logits, class_ids, maps = jax.device_get(ours)
    same = class_ids == theirs[1].astype(np.int32)
    logit_error = np.abs(logits - theirs[0]).max() / np.abs(theirs[0]).max()
    map_error = np.abs(maps - theirs[2])[same].max(initial=0) / np.abs(theirs[2]).max()
    if not max(logit_error, map_error) < 0.1:
        raise RuntimeError(f"logits differ by {logit_error:.1e}, maps by {map_error:.1e}: these are not the same maps.")
    return f"logits differ by {logit_error:.1e}, maps by {map_error:.1e}, top class the same for {same.mean():.0%}"


def same_boxes(ours, theirs: np.ndarray) -> str:
    """Says how many boxes are the same, within a hundredth of the image."""
    ours = np.asarray(ours).reshape(-1, 4)
    return f"{(np.abs(ours - theirs).max(1) < 0.01).mean():.0%} of the boxes are the same"


def random_images(sizes: Sizes, batch: int) -> np.ndarray:
    """(batch, side, side, 3) uint8."""
    return np.random.default_rng(batch).integers(0, 256, (batch, sizes.side, sizes.side, 3), np.uint8)


@functools.cache
def networks(name: str, dtype: str, side: int):
    """PyTorch's network with random weights, or None without PyTorch; and camjax's with the same, in `dtype`."""
    network = torch_network(name) if has_torch() else None
    if network is None:
        model = create_model(name, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    else:
        from benchmarks.twins import with_weights_of

        model = with_weights_of(network, name, jnp.dtype(dtype))
    model.input_size = (side, side)
    return network, model


@functools.cache
def torch_network(name: str):
    """The network of torchvision or timm; None where neither is installed and has it."""
    import torch

    torch.manual_seed(0)
    if hasattr(import_torchvision().models, name):
        return getattr(import_torchvision().models, name)().eval()
    if missing("timm"):
        return None
    import timm

    if f"tf_{name}" not in timm.list_models():
        return None
    return timm.create_model(f"tf_{name}").eval()


SECTIONS: dict[str, tuple[Callable[[Report, Sizes], None], int, int]] = {
    # the function, about how many seconds it takes at least, and when it is stopped
    "environment": (environment, 5, 150),
    "peak": (peak, 5, 60),
    "cam": (cam, 40, 200),
    "localize": (localize, 30, 100),
    "components": (components, 10, 60),
    "train": (train, 60, 150),
    "lite0": (lite0, 50, 120),
    "lite0_train": (lite0_train, 60, 300),
    "fit": (fit_beside_step, 30, 90),
    "profile": (profile, 20, 90),
    "convolutions": (convolutions, 20, 80),
    "variants": (variants, 30, 120),
}
