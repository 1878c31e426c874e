"""The forms in which a CPU can compute a convolution, its gradients and a pooling, each by itself: where does one win?

    python -m benchmarks.convolutions [--quick]

prints, in milliseconds, XLA's own form, those of `camjax.models`, and PyTorch's in its two layouts. `models/conv.py`
chooses by these tables. One core, processor time, the median of several turns of all forms of a row (float32).
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich.console import Console
from rich.table import Table

from benchmarks.peers import missing
from benchmarks.timing import cpu_name
from camjax.models import windows, winograd
from camjax.models.depthwise import depthwise
from camjax.models.pooling import max_pool

PADS = ((1, 1), (1, 1))
# Batch, side, channels in, channels out: VGG's, ResNet's, DenseNet's and SqueezeNet's.
SAME = (
    *[(8, 112, 128, 128), (8, 56, 64, 64), (8, 56, 256, 256), (8, 28, 128, 128), (8, 14, 256, 256), (8, 14, 512, 512)],
    *[(8, 7, 512, 512), (1, 56, 64, 64), (1, 28, 128, 128), (1, 14, 256, 256), (1, 7, 512, 512)],
    *[(8, 56, 128, 32), (8, 28, 128, 32), (8, 14, 128, 32), (8, 56, 16, 64), (8, 28, 48, 192)],
)
# Batch, side, channels in, channels out, side of the kernel, stride.
STRIDED = (
    *[(8, 224, 3, 64, 7, 2), (8, 56, 64, 128, 3, 2), (8, 28, 128, 256, 3, 2), (8, 14, 256, 512, 3, 2)],
    *[(8, 224, 3, 96, 11, 4), (8, 56, 128, 128, 3, 2)],
)
DEPTHWISE = ((8, 56, 96), (8, 28, 192), (8, 14, 384), (8, 7, 768))  # of ConvNeXt-Tiny, 3, 3, 9 and 3 times
POINTWISE = ((8, 56, 64, 256), (8, 56, 256, 64), (8, 28, 512, 128), (8, 14, 1024, 256), (8, 7, 2048, 512))


def native(images, kernel, stride=1, pads=PADS):
    return lax.conv_general_dilated(images, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def of_kernel(convolution, kernel, images, cotangent):
    return jax.vjp(lambda kernel: convolution(images, kernel), kernel)[1](cotangent)[0]


def milliseconds(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians of processor time, in turns."""
    times = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.process_time()
            jax.block_until_ready(function())
            times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def torch_forms(
    images, cotangent, kernel, stride: int, pad: int, *, gradient: bool, groups: int = 1
) -> dict[str, Callable[[], object]]:
    """PyTorch's convolution, or its kernel's gradient, in both layouts."""
    import torch

    torch.set_num_threads(1)
    forms = {}
    for name, layout in (("PyTorch", torch.contiguous_format), ("channels_last", torch.channels_last)):
        x, by = (
            torch.tensor(np.moveaxis(np.asarray(a), 3, 1)).contiguous(memory_format=layout) for a in (images, cotangent)
        )
        weight = torch.tensor(np.transpose(np.asarray(kernel), (3, 2, 0, 1)).copy()).contiguous(memory_format=layout)
        if gradient:
            which = [False, True, False]
            arguments = (by, x, weight, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], groups, which)
            forms[name] = functools.partial(torch.ops.aten.convolution_backward, *arguments)
        else:
            forms[name] = functools.partial(torch.nn.functional.conv2d, x, weight, None, stride, pad, 1, groups)
    return forms


def arrays(batch, side, channels, outputs, size, stride, pad):
    rng = np.random.default_rng(0)
    out = (side + 2 * pad - size) // stride + 1
    shapes = ((batch, side, side, channels), (size, size, channels, outputs), (batch, out, out, outputs))
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def table(console: Console, title: str, rows, forms: Callable, rounds: int) -> None:
    """Prints a table of rows, each measured by `forms(*row)`, which names the forms."""
    lines = [(row, milliseconds(forms(*row), rounds)) for row in rows]
    names = list(dict.fromkeys(name for _, times in lines for name in times))
    printed = Table("batch, side, channels", *names, title=title, title_justify="left")
    for row, times in lines:
        printed.add_row(", ".join(map(str, row)), *(f"{times[name]:.1f}" if name in times else "" for name in names))
    console.print(printed)


def jitted(function, *arguments) -> Callable[[], object]:
    return functools.partial(jax.jit(function), *arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few turns")
    rounds = 3 if parser.parse_args().quick else 15
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jax.config.update("jax_platforms", "cpu")
    console = Console(width=120)
    console.print(f"{cpu_name()}, one core, jax {jax.__version__}, processor time")
    torch = not missing("torch")

    def forward(*row):
        images, kernel, cotangent = arrays(*row, 3, 1, 1)
        forms = {"XLA": jitted(native, images, kernel)}
        forms["Winograd"] = jitted(lambda x, k: winograd.convolution(x, k, PADS), images, kernel)
        return forms | (torch_forms(images, cotangent, kernel, 1, 1, gradient=False) if torch else {})

    def kernel_gradient(*row):
        *shape, size, stride = row if len(row) == 6 else (*row, 3, 1)
        pad = size // 2
        pads = ((pad, pad), (pad, pad))
        images, kernel, cotangent = arrays(*shape, size, stride, pad)
        by_xla = functools.partial(of_kernel, lambda x, k: native(x, k, stride, pads), kernel)
        by_windows = functools.partial(
            windows.kernel_cotangent, kernel_size=(size, size), strides=(stride, stride), pads=pads
        )
        forms = {"XLA": jitted(by_xla, images, cotangent), "windows": jitted(by_windows, images, cotangent)}
        if (size, stride) == (3, 1):
            forms["Winograd"] = jitted(lambda x, by: winograd.kernel_cotangent(x, by, PADS), images, cotangent)
        return forms | (torch_forms(images, cotangent, kernel, stride, pad, gradient=True) if torch else {})

    def pointwise(*row):
        images, kernel, cotangent = arrays(*row, 1, 1, 0)

        def product(images, kernel, axes):
            return lax.dot_general(images, kernel[0, 0], (((axes - 1,), (0,)), ((), ())))

        def two_axes(images, kernel):
            return product(images.reshape(-1, images.shape[-1]), kernel, 2).reshape(cotangent.shape)

        # ReLU before it, as in a network: XLA joins it to the transposition of the images.
        def of(form):
            return lambda images, cotangent: of_kernel(form, kernel, jax.nn.relu(images), cotangent)

        forms = {
            "convolution": of(lambda x, k: native(x, k, 1, ((0, 0), (0, 0)))),
            "product of 4 axes": of(lambda x, k: product(x, k, 4)),
            "product of 2 axes": of(two_axes),
        }
        forms = {name: jitted(form, images, cotangent) for name, form in forms.items()}
        return forms | (torch_forms(images, cotangent, kernel, 1, 0, gradient=True) if torch else {})

    def depthwise_forward(*row):
        images, kernel, cotangent = arrays(*row, row[2], 7, 1, 3)
        kernel, pads = kernel[:, :, :1], ((3, 3), (3, 3))

        def by_xla(images, kernel):
            numbers = ("NHWC", "HWIO", "NHWC")
            return lax.conv_general_dilated(
                images, kernel, (1, 1), pads, dimension_numbers=numbers, feature_group_count=row[2]
            )

        forms = {"XLA": jitted(by_xla, images, kernel)}
        forms["shifted sum"] = jitted(lambda x, k: depthwise(x, k[:, :, 0], (1, 1), pads), images, kernel)
        peers = torch_forms(images, cotangent, kernel, 1, 3, gradient=False, groups=row[2]) if torch else {}
        return forms | peers

    def pooling(*row):
        images, _, cotangent = arrays(*row, row[2], 3, 2, 1)

        def of(pool):
            return jitted(lambda x, by: jax.vjp(pool, x)[1](by)[0], images, cotangent)

        def by_xla(x):
            window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
            return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, ((0, 0), *PADS, (0, 0)))

        return {"XLA": of(by_xla), "shifted maxima": of(lambda x: max_pool(x, 3, 2, PADS))}

    table(console, "Forward, 3x3, stride 1", SAME, forward, rounds)
    table(console, "Forward, 7x7 depthwise", DEPTHWISE, depthwise_forward, rounds)
    table(console, "Gradient of the kernel, 3x3, stride 1", SAME, kernel_gradient, rounds)
    table(console, "Gradient of the kernel: side of the kernel, stride", STRIDED, kernel_gradient, rounds)
    table(console, "Gradient of a 1x1 kernel, behind a ReLU", POINTWISE, pointwise, rounds)
    table(console, "Gradient of a 3x3 maximum, stride 2", ((8, 112, 64), (8, 56, 192)), pooling, rounds)


if __name__ == "__main__":
    main()
