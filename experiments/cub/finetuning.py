"""Fine-tuning on CUB-200-2011 as the benchmark of weakly supervised localization does it (Choe et al. 2020).

`experiments/cub/__main__.py` describes the experiment, and what to expect.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

import camjax
from camjax.checks import num_classes as check_has_maps
from camjax.cli.training_run import run_training
from camjax.data.annotation import AnnotatedSource
from camjax.models import CamModel, with_wsol
from camjax.models.vit import VisionTransformer
from camjax.models.wsol.table import new_layers, wsol_words
from camjax.terminal import Console
from camjax.training import Recipe
from camjax.training.published import tscam, wsol
from experiments.common.benchmark import CENTER_BOX, CENTER_BOX_NOTE, THRESHOLD_STEP, augmentation, evaluate_split
from experiments.common.table import result_table
from experiments.cub.table4 import NOT_PUBLISHED_DATA, images_in_words, is_published_data

# MaxBoxAccV2 of CAM on CUB's test images (Choe et al. 2020). Networks with a map of 28x28 share the settings.
PUBLISHED = {"vgg16_wsol": 63.7, "inception_v3_wsol": 56.7, "resnet50_wsol": 63.0}
# Of TS-CAM with DeiT-S (Gao et al. 2021, by the authors' repository): localization in the epoch that is best on the
# test images, at a tenth of a map's maximum.
TSCAM = {"GT-known localization": 87.7, "top-1 localization error": 28.7, "top-1 classification error": 19.7}
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


def starting_model(network: str, weights: str | None, num_classes: int, method: Sequence[str] = ()) -> CamModel:
    """The network to fine-tune, with a new head.

    The benchmark's networks have new last layers: they take only the backbone of a file of ImageNet weights
    (torchvision's vgg16, inception_v3, resnet50). Other networks keep everything but the head.

    Args:
      network: a name of the registry, or the directory of a run.
      weights: of it; None for its own.
      num_classes: C.
      method: for weakly supervised localization, and its options as OPTION=NUMBER; CAM if there is none.

    Raises:
      ValueError: a network that has no map with this method.
    """
    if is_published(network):
        model = camjax.load_model(network, weights, num_classes=num_classes, backbone_only=True)
    else:
        model = camjax.with_new_head(camjax.load_model(network, weights), num_classes)
    model = with_wsol(model, wsol_words(method))
    check_has_maps(model)
    return model


def finetuning_recipe(network: str, num_examples: int, model: CamModel | None = None) -> Recipe:
    """The benchmark's settings for a network; for other networks those of its ResNet-50, with a new head.

    Vision transformers have the settings of TS-CAM.

    Args:
      network: a name of the registry, or the directory of a run.
      num_examples: training images.
      model: that is fine-tuned; None for a convolutional network without a method for localization.
    """
    if isinstance(model, VisionTransformer):
        return tscam("cub", num_examples=num_examples)
    known = is_published(network)
    recipe = wsol(network if known else "resnet50_wsol", "cub", num_examples=num_examples)
    places = recipe.new_layers if known else ("head",)
    return dataclasses.replace(recipe, new_layers=places if model is None else new_layers(model, places))


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


def finetuning_table(numbers: Mapping[str, Mapping], network: str, data: Mapping, method: Sequence[str] = ()) -> Table:
    """Our numbers, beside published ones if they are on the same images.

    Args:
      numbers: of `finetune`.
      network: the name of ours.
      data: what ours are on, as in `experiments.cub.table4.is_published_data`.
      method: as in `starting_model`.
    """
    of_tscam = [*method[:1]] == ["tscam"]
    compared = network.removesuffix("_28x28") if is_published(network) else "resnet50_wsol"
    columns = (
        {"published, DeiT-S": TSCAM} if of_tscam else {f"published, {compared}": {"MaxBoxAccV2": PUBLISHED[compared]}}
    )
    columns["center box"] = {"MaxBoxAccV2": CENTER_BOX["cub"]}
    if not is_published_data(data):
        columns = {}
    caption = f"{CENTER_BOX_NOTE} " * bool(columns) + (
        "Localization at the paper's threshold 0.2, MaxBoxAcc at the best threshold, in steps of "
        f"{THRESHOLD_STEP:g} as published." + ("" if columns else f" {NOT_PUBLISHED_DATA}")
    )
    if columns and of_tscam:
        caption += " Published localization of TS-CAM is at 0.1, in the epoch that is best on the test images."
    title = f"Fine-tuned{', TS-CAM' * of_tscam}: {images_in_words(data)} (%)"
    table = result_table(title, *columns, f"ours, {network}", caption=caption)
    for name, metric, key in ROWS:
        cells = [f"{of[name]:.1f}" if name in of else "" for of in columns.values()]
        table.add_row(name, *cells, f"{numbers[metric][key]:.1f}")
    return table
