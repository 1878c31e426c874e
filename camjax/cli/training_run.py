"""The way of every command that trains: where a network starts, what the run will be, and the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

import camjax
from camjax.checkpoints import KEPT, checkpoint_bytes
from camjax.checks import check_images
from camjax.data.loader import RandomAccessSource
from camjax.data.transforms import Transform
from camjax.errors import InputError
from camjax.models import CamModel, model_spec
from camjax.models.head import Pool
from camjax.models.inference_mode import inference_view, run_for_inference
from camjax.terminal import Console
from camjax.training import Recipe, TrainState, describe_plan, fit
from camjax.training.run_card import count_parameters


def starting_model(
    network: str,
    weights: str | None,
    num_classes: int,
    *,
    from_scratch: bool = False,
    head: Literal["new", "kept"] | None = None,
    pool: Pool | None = None,
    dtype: str = "float32",
    seed: int = 0,
) -> CamModel:
    """The network of the registry that training starts from.

    Args:
      network: its name.
      weights: as in `camjax.load_model`.
      num_classes: C.
      from_scratch: start from random weights; `weights` do not count.
      head: whether the head, and layers before it that the original network lacks, start from random weights or come
        with the weights. None: new in networks with such layers, kept in others if the number of classes is the same.
      pool: "gap" or "gmp"; None for the default.
      dtype: compute dtype.
      seed: of random weights.
    """
    rngs, compute = nnx.Rngs(seed), jnp.dtype(dtype)
    if from_scratch:
        return camjax.create_model(network, num_classes, pool=pool or "gap", dtype=compute, rngs=rngs)
    new = model_spec(network).new_layers != ("head",) if head is None else head == "new"
    return camjax.load_model(
        network, weights, num_classes=num_classes, pool=pool, dtype=compute, rngs=rngs, backbone_only=new
    )


def set_image_size(model: CamModel, size: tuple[int, int]) -> None:
    """Sets the size of the images that a network trains on, and later takes.

    Args:
      model: changed in place.
      size: (H, W) in pixels.

    Raises:
      ValueError: the network takes no images of this size.
    """
    try:
        images = check_images(model, jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8))
        nnx.eval_shape(run_for_inference, inference_view(model), images)
    except ValueError as error:
        raise InputError(f"--image-size {size[0]}: {error}") from None
    model.input_size = size


def run_training(
    model: CamModel,
    train: RandomAccessSource,
    recipe: Recipe,
    *,
    out: Path | None,
    augment: Transform | None,
    intervals: tuple[int, int],
    console: Console,
    validation: RandomAccessSource | None = None,
    workers: int = 0,
    notes: Sequence[tuple[str, str]] = (),
    dry_run: bool = False,
) -> CamModel | None:
    """Says what a run will be, and trains; a dry run only says it.

    Args:
      model: where training starts.
      train: training images.
      recipe: with all changes.
      out: the run's directory; None writes nothing.
      augment: random change of an image.
      intervals: steps between two checkpoints, and between two evaluations.
      console: of the first process; the others' is quiet.
      validation: images to evaluate on, or None.
      workers: processes that read images; 0 reads in threads.
      notes: further lines about the run: a word or two, and the rest.
      dry_run: say what the run needs, and do not train.

    Returns:
      The trained model; None after a dry run.
    """
    checkpoint_every, eval_every = intervals
    name = model.created_as["name"] if model.created_as else type(model).__name__
    epochs = recipe.steps * recipe.batch_size / len(train)
    lines = [
        ("network", f"{name}, {count_parameters(model):,} parameters, in {model.dtype.name}"),
        *notes,
        ("length", f"{recipe.steps:,} steps of {recipe.batch_size} images ({epochs:.3g} epochs of {len(train):,})"),
        ("images", f"{augment or 'whole'}"),
        ("evaluation", "none" if validation is None else f"every {eval_every:,} steps on {len(validation):,} images"),
        ("devices", f"{jax.device_count()} x {jax.devices()[0].device_kind}"),
        ("written to", "nowhere" if out is None else _written(out, checkpoint_every, model, recipe)),
    ]
    for word, rest in lines:
        console.print(f"{word:<12}{rest}")
    if dry_run:
        console.print(str(describe_plan(model, recipe, train)))
        return None
    return fit(
        model,
        train,
        recipe,
        run_dir=out,
        augment=augment,
        eval_source=validation,
        eval_every=eval_every,
        checkpoint_every=checkpoint_every,
        num_workers=workers,
    )


def _written(out: Path, every: int, model: CamModel, recipe: Recipe) -> str:
    """Where the run goes, and how much it writes."""
    state = jax.eval_shape(lambda: TrainState.create(model, recipe))
    megabytes = checkpoint_bytes(state) / 1e6
    return f"{out}, a checkpoint of {megabytes:,.0f} MB every {every:,} steps; {KEPT} are kept"
