"""Fine-tuning on CUB-200-2011 as the benchmark of weakly supervised localization does it (Choe et al. 2020).

`experiments/cub/__main__.py` describes the experiment, and what to expect.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

import camjax
from camjax.cli.training_run import run_training
from camjax.data.annotation import AnnotatedSource
from camjax.models import CamModel
from camjax.terminal import Console
from camjax.training import Recipe
from camjax.training.published import wsol
from experiments.common.benchmark import CENTER_BOX, CENTER_BOX_NOTE, THRESHOLD_STEP, augmentation, evaluate_split
from experiments.common.table import result_table
from experiments.cub.table4 import NOT_PUBLISHED_DATA, images_in_words, is_published_data

# MaxBoxAccV2 of CAM on CUB's test images (Choe et al. 2020). Networks with a map of 28x28 share the settings.
PUBLISHED = {"vgg16_wsol": 63.7, "inception_v3_wsol": 56.7, "resnet50_wsol": 63.0}
METRICS = ("ilsvrc", "maxboxacc", "maxboxaccv2")

ROWS = (
    ("MaxBoxAcc", "maxboxacc", "MaxBoxAcc"),
    ("MaxBoxAccV2", "maxboxaccv2", "MaxBoxAccV2"),
    ("  IoU 0.3", "maxboxaccv2", "MaxBoxAccV2_30"),
    ("  IoU 0.5", "maxboxaccv2", "MaxBoxAccV2_50"),
    ("  IoU 0.7", "maxboxaccv2", "MaxBoxAccV2_70"),
    ("GT-known localization", "ilsvrc", "gt_known_localization"),
    ("top-1 localization error", "ilsvrc", "top1_localization_error"),
    ("top-1 classification error", "ilsvrc", "top1_classification_error"),
)


def is_published(network: str) -> bool:
    """Whether the benchmark has settings for a network."""
    return network.removesuffix("_28x28") in PUBLISHED


def starting_model(network: str, weights: str | None, num_classes: int) -> CamModel:
    """The network to fine-tune, with a new head.

    The benchmark's networks have new last layers: they take only the backbone of a file of ImageNet weights
    (torchvision's vgg16, inception_v3, resnet50). Other networks keep everything but the head.
    """
    if is_published(network):
        return camjax.load_model(network, weights, num_classes=num_classes, backbone_only=True)
    return camjax.with_new_head(camjax.load_model(network, weights), num_classes)


def finetuning_recipe(network: str, num_examples: int) -> Recipe:
    """The benchmark's settings for a network; for other networks those of its ResNet-50, with a new head.

    Args:
      network: a name of the registry, or the directory of a run.
      num_examples: training images.
    """
    if is_published(network):
        return wsol(network, "cub", num_examples=num_examples)
    return dataclasses.replace(wsol("resnet50_wsol", "cub", num_examples=num_examples), new_layers=("head",))


def finetune(
    model: CamModel,
    recipe: Recipe,
    train: AnnotatedSource,
    test: AnnotatedSource,
    out: Path,
    subject: Mapping,
    *,
    workers: int,
    console: Console,
) -> dict:
    """Trains, evaluates the last checkpoint on the test images, and draws figures; continues an interrupted run.

    Args:
      model: training starts from it.
      recipe: of the training.
      train: training images; of their annotations only the labels are used.
      test: test images.
      out: folder of the run, and of `evaluation` in it.
      subject: describes model and data, in JSON's types.
      workers: processes that read images.
      console: shows progress.

    Returns:
      Metric -> its numbers, see `METRICS`.
    """
    model.class_names = train.info.class_names
    epoch = max(1, len(train) // recipe.batch_size)
    augment = augmentation(model.input_size)
    trained = run_training(
        model, train, recipe, out=out, augment=augment, intervals=(epoch, epoch), console=console, workers=workers
    )
    assert trained is not None  # as after a dry run
    evaluation = evaluate_split(
        trained,
        test,
        out / "evaluation",
        subject,
        metrics=METRICS,
        batch_size=recipe.batch_size,
        workers=workers,
        console=console,
    )
    return {name: metric.compute() for name, metric in evaluation.metrics["cam"].items()}


def finetuning_table(numbers: Mapping[str, Mapping], network: str, data: Mapping) -> Table:
    """Our numbers, beside the benchmark's if they are on the same images.

    Args:
      numbers: of `finetune`.
      network: the name of ours.
      data: what ours are on, as in `experiments.cub.table4.is_published_data`.
    """
    published = is_published_data(data)
    compared = network.removesuffix("_28x28") if is_published(network) else "resnet50_wsol"
    caption = f"{CENTER_BOX_NOTE} " * published + (
        "Localization at the paper's threshold 0.2, MaxBoxAcc at the best threshold, in steps of "
        f"{THRESHOLD_STEP:g} as published." + ("" if published else f" {NOT_PUBLISHED_DATA}")
    )
    columns = [f"published, {compared}", "center box"] * published + [f"ours, {network}"]
    table = result_table(f"Fine-tuned: {images_in_words(data)} (%)", *columns, caption=caption)
    for name, metric, key in ROWS:
        theirs = (PUBLISHED[compared], CENTER_BOX["cub"]) if key == "MaxBoxAccV2" else ()
        cells = ([f"{number:.1f}" for number in theirs] or ["", ""]) * published
        table.add_row(name, *cells, f"{numbers[metric][key]:.1f}")
    return table
