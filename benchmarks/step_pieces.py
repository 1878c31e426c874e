"""Where a training step's time goes on a CPU: forward, gradients of images and kernels, pooling, the rest, by a trace.

    python -m benchmarks.step_pieces [NETWORK] [BATCH]

prints a table, of one core, of float32 images of 224x224: milliseconds a step and the share. What XLA has fused counts
where its last operation belongs.
"""

import argparse
import collections
import math
import os
import re
import tempfile
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

import camjax
from benchmarks.accelerator_profile import events_of, instructions
from benchmarks.timing import cpu_name
from camjax.training import Recipe, TrainState
from camjax.training.parallel import parallel_train_step, put_batch, replicate

STEPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", nargs="?", default="resnet18")
    parser.add_argument("batch", nargs="?", type=int, default=8)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jax.config.update("jax_platforms", "cpu")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (arguments.batch, 224, 224, 3), np.uint8)
    model = camjax.create_model(arguments.network, rngs=nnx.Rngs(0))
    sizes = {leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)) if leaf.ndim > 1}
    recipe = Recipe(steps=1000, batch_size=arguments.batch, learning_rate=0.01)
    step, state = parallel_train_step(recipe), replicate(TrainState.create(model, recipe))
    batch = put_batch({"image": images, "label": np.arange(arguments.batch, dtype=np.int32)})
    for _ in range(2):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
        events = [event for path in Path(folder).rglob("*.xplane.pb") for event in events_of(path)]
    places = instructions({name for name, _ in events})
    pieces: collections.Counter = collections.Counter()
    for name, nanoseconds in events:
        if not re.fullmatch(r"while[.\d]*|call[.\d]*", name):  # what is in them has its own events
            pieces[piece(name, *places.get(name, ("", "")), sizes)] += nanoseconds
    total = sum(pieces.values())
    title = f"{arguments.network}, batch {arguments.batch}; {cpu_name()}, one core, jax {jax.__version__}"
    table = Table("piece", "ms", "share", title=title, title_justify="left", min_width=90)
    for name, nanoseconds in pieces.most_common():
        table.add_row(name, f"{nanoseconds / STEPS / 1e6:.1f}", f"{nanoseconds / total:.1%}")
    table.add_row("all", f"{total / STEPS / 1e6:.1f}", "")
    Console(width=120).print(table)


def piece(name: str, shape: str, place: str, sizes: set[int]) -> str:
    """What an instruction belongs to.

    Args:
      name: its own.
      shape: of its result, as HLO writes it.
      place: the path of JAX's transformations and primitives; "" for gradients of convolutions, where XLA loses it.
      sizes: numbers of elements of the network's kernels.
    """
    backward = "transpose(" in place or not place
    if "max_pool" in place or "select-and-scatter" in name or "reduce-window" in name:
        return "max pooling" + (", gradient" if backward else "")
    products = ("conv_general_dilated", "dot_general") if place else ("ynn_fusion", "convolution", "dot")
    product = (place.rsplit("/", 1)[-1] or name).startswith(products)
    if product and backward:
        dimensions = re.search(r"\[([\d,]*)\]", shape)
        count = math.prod(int(side) for side in dimensions[1].split(",") if side) if dimensions else 0
        of_kernel = count in sizes or 9 * count in sizes  # a product of Winograd's form is a ninth of the kernel
        return "gradients of kernels, products" if of_kernel else "gradients of images, products"
    if "jvp(" in place and not backward:
        return "forward, products" if product else "forward, the rest"
    return "backward, the rest" if backward else "optimizer and the rest"


if __name__ == "__main__":
    main()
