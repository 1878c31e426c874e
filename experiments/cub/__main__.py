r"""Table 4 of Zhou et al. 2016: which bird it is, from the whole image and from the part that a map shows.

    camjax prepare caltech_birds2011 --data-dir DATA                       # once; 1.1 GB to download
    python -m experiments.cub --data-dir DATA                              # EfficientNet-Lite0, works offline
    python -m experiments.cub --data-dir DATA --model googlenet_gap \
        --weights cam-release --out runs/cub_googlenet \
        --finetune-model resnet50_wsol --finetune-weights resnet50.pth     # the networks of the paper and the benchmark
    python -m experiments.cub --data-dir DATA --out runs/cub_tscam \
        --finetune-model deit_small_patch16_224 --finetune-weights timm --finetune-method tscam    # TS-CAM
    python -m experiments.cub --dataset scenes --limit-train 300 --limit-test 150 --epochs 1   # a trial without CUB

**Table 4** (section 4.1) uses 5,994 training and 5,794 test images of 200 species of birds, and features of a network
that was trained on ImageNet alone: the global average of its last feature map, of the image squashed to the network's
input. One-vs-all linear support vector machines are trained on features

1. of full images. Their weights, in place of the dense layer's, give the maps of the 200 species (section 4);
2. of crops: the largest region above 20 % of the map's maximum, as in section 3.2, gives a box for each image of both
   sets, and features are computed again from the crop. Which class's map to take is our choice: the true class for
   training images; for test images, whose labels are unknown, the class that the first SVMs predict. Where a map
   has no region, the crop is the whole image; `results.json` says how often;
3. of crops by the true boxes.

In the paper the CAM box has IoU > 0.5 with the bird in 41.0 % of the images, against a chance of 5.5 %. We measure it
on the test images, with the box of the predicted class, and below it with that of the true class; our chance is a box
between two random points. Also our choices: features are standardized, and the SVMs' penalty is chosen by
cross-validation on the training images.

The paper's accuracies with GoogLeNet-GAP: 63.0 % on full images, 67.8 % on CAM crops, 70.5 % on true boxes.

**Fine-tuning** follows the benchmark of Choe et al. 2020: 50 epochs in batches of 32, images squashed to 256 pixels,
cropped at random to 224, and flipped; learning rates as in `camjax.training.published.wsol`. MaxBoxAccV2 of CAM
there: VGG 63.7, Inception 56.7, ResNet 63.0, the center box 59.7 (which is its MaxBoxAcc: docs/reproducing_cub.md),
at thresholds in steps of 0.001, as ours are. Networks without published settings, such as EfficientNet-Lite0, take
those of its ResNet-50.

With `--finetune-method tscam` a vision transformer with a class token is trained by TS-CAM (Gao et al. 2021,
arXiv:2103.14862), with its settings: AdamW, 60 epochs in batches of 128; `camjax.training.published.tscam`. Published
for DeiT-S: 71.3 % top-1 and 87.7 % GT-known localization, 80.3 % top-1 accuracy.

Published numbers are printed beside ours only where ours are on all images of CUB-200-2011.

Our numbers: none yet. CUB-200-2011 was not available where this was written; only the command with `--dataset scenes`
was run.

Cost (estimated where not marked as measured): Table 4 takes four passes over the images, 11 minutes for Lite0 at 70
images/s on two CPU cores, and 600 SVMs in ten fits each (three penalties, three folds, and the last). One SVM
on 5,994 made-up examples of 1,280 features took 0.5 to 2 s on a busy core (measured), so about 40 minutes on two cores.
Fine-tuning passes 300,000 images forward and backward: hours on CPU, not measured on a GPU.

Each finished stage is kept in `results.json` in the output folder: the same command continues after it.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from camjax.checks import check_threshold
from camjax.cli.options import (
    Folder,
    OptionalCount,
    OptionalFolder,
    OptionalName,
    Share,
    Weights,
    arg,
    at_least_one,
)
from camjax.cli.training_options import RecipeOptions
from camjax.data.annotated import open_annotated
from camjax.data.annotation import AnnotatedSource
from camjax.errors import InputError
from camjax.evaluation.truth import First
from camjax.models import CamModel
from camjax.models.vit import VisionTransformer
from camjax.models.wsol.table import wsol_words
from camjax.processes import is_first
from camjax.terminal import Console
from camjax.training import Recipe
from experiments.common.command import start
from experiments.common.stages import Stages
from experiments.common.svm import SvmOptions
from experiments.cub.finetuning import (
    THRESHOLD_STEP,
    finetune,
    finetuning_recipe,
    finetuning_table,
    is_published,
    starting_model,
)
from experiments.cub.table4 import read_birds, run_table4, table4


@dataclass(frozen=True, kw_only=True)
class Options(SvmOptions, RecipeOptions):
    """Table 4 on CUB-200-2011: birds classified from full images, from CAM crops and from true boxes; then fine-tuning.

    Attributes:
      dataset: A prepared data set of images with one box each, with splits "train" and "test"; "scenes" needs no
        download. With --lists, a folder of images.
      data_dir: Where the data set is prepared; tensorflow-datasets' default if not given.
      lists: The folder of the benchmark's lists, metadata/CUB, as in `python -m experiments.wsol`.
      out: Where results, boxes and figures go. The same command continues where it stopped.
      threshold: CAM boxes enclose the largest region where the map exceeds this share of its maximum.
      limit_train: Only the first N training images.
      limit_test: Only the first N test images.
      skip_finetuning: Only Table 4.
      finetune_model: The network to fine-tune, if it is another one: vgg16_wsol, inception_v3_wsol or resnet50_wsol
        have published settings.
      finetune_weights: A file of its ImageNet weights (torchvision's vgg16, inception_v3, resnet50), or an address.
      finetune_method: A method for weakly supervised localization: cam, has, cutmix, adl, acol, spg, or tscam, which
        takes a network with a class token; and its options.
    """

    dataset: Annotated[str, arg("NAME|DIR")] = "caltech_birds2011"
    data_dir: OptionalFolder = None
    lists: OptionalFolder = None
    out: Folder = Path("runs/cub")
    threshold: Share = 0.2
    limit_train: OptionalCount = None
    limit_test: OptionalCount = None
    skip_finetuning: bool = False
    finetune_model: OptionalName = None
    finetune_weights: Weights = None
    finetune_method: Annotated[tuple[str, ...], arg("METHOD [OPTION=NUMBER ...]")] = ("cam",)

    def __post_init__(self):
        check_threshold(self.threshold)
        wsol_words(self.finetune_method)
        RecipeOptions.__post_init__(self)
        at_least_one(self, "batch_size", "limit_train", "limit_test")
        of_finetuning = (
            "finetune_model",
            "finetune_weights",
            "finetune_method",
            *(field.name for field in fields(RecipeOptions)),
        )
        default = {field.name: field.default for field in fields(self)}
        changed = [name for name in of_finetuning if getattr(self, name) != default[name]]
        given = [f"--{name.replace('_', '-')}" for name in changed]
        if self.skip_finetuning and given:
            raise InputError(f"{', '.join(given)} with --skip-finetuning: leave out one or the other.")
        if self.finetune_weights and not self.finetune_model:
            raise InputError("--finetune-weights without --finetune-model: name the network that they are for.")


def run(options: Options, train: AnnotatedSource, test: AnnotatedSource, console: Console) -> None:
    """Runs the experiment on the given images; see the module."""
    stages, model = Stages(options.out), options.load_model()
    data = {
        "dataset": train.info.name,
        "splits": [train.info.split, test.info.split],
        "images": [len(train), len(test)],
    }
    # Errors about the network to fine-tune should come now, not hours later.
    tuning = None if options.skip_finetuning else _prepare_finetuning(options, train, data)
    results = run_table4(
        model,
        read_birds(train),
        read_birds(test),
        stages,
        options.out,
        {**data, **options.network(model)},
        threshold=options.threshold,
        penalties=options.penalties,
        batch_size=options.batch_size,
        console=console,
    )
    for table in table4(results, options.model, data):
        console.print(table)
    if tuning:
        model, recipe, subject = tuning
        network = subject["model"]
        if not is_published(network) and not isinstance(model, VisionTransformer):
            console.print(f"No settings are published for {network}: fine-tuning with those of ResNet-50.")

        def stage() -> dict:
            out = options.out / "finetuning"
            return finetune(model, recipe, train, test, out, subject, workers=options.workers, console=console)

        settings = {"recipe": vars(recipe), "threshold_step": THRESHOLD_STEP}
        numbers = stages.run("fine-tuning", {**subject, **settings}, stage, together=True)
        console.print(finetuning_table(numbers, network, data, options.finetune_method))
    console.print(f"Saved {stages.path}, and figures beside it", soft_wrap=True)


def _prepare_finetuning(options: Options, train: AnnotatedSource, data: dict) -> tuple[CamModel, Recipe, dict]:
    """The network to fine-tune, the recipe, and what results.json says about both."""
    network, weights = options.model, options.weights
    if options.finetune_model:
        network, weights = options.finetune_model, options.finetune_weights
    model = starting_model(network, weights, train.info.num_classes, options.finetune_method)
    recipe = options.changed(finetuning_recipe(network, len(train), model), len(train))
    method = {} if model.wsol is None else {"method": wsol_words(options.finetune_method)}
    return model, recipe, {**data, "model": network, "weights": weights, **method}


def main(options: Options) -> None:
    """Opens the data set, and runs."""

    def opened(split: str, limit: int | None) -> AnnotatedSource:
        source = open_annotated(options.dataset, split, data_dir=options.data_dir, lists=options.lists)
        return source if limit is None or limit >= len(source) else First(source, limit)

    options.processes.join(preemption=True)
    train, test = opened("train", options.limit_train), opened("test", options.limit_test)
    run(options, train, test, Console(quiet=not is_first()))


if __name__ == "__main__":
    start("cub", main, Options)
