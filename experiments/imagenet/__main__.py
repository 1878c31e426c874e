r"""Train a network on ImageNet from class labels: the networks of Zhou et al. 2016, and those compared with them.

    camjax prepare imagenet2012 --archives DIR --data-dir DATA     # once
    python -m experiments.imagenet --recipe googlenet_cam --weights bvlc_googlenet.caffemodel --data-dir DATA
    python -m experiments.imagenet --recipe googlenet_cam --model vgg16_gap --weights vgg16-397923af.pth --data-dir DATA
    python -m experiments.imagenet --recipe resnet50 --data-dir DATA
    python -m experiments.imagenet --recipe wsol --model vgg16_wsol --weights vgg16-397923af.pth --data-dir DATA
    python -m experiments.imagenet --recipe googlenet_cam --model small_gap --weights random --dataset scenes \
        --epochs 5 --learning-rate 0.05

The last is a trial without ImageNet: five minutes on two busy CPU cores, top-1 error 30.2 %. `--dry-run` describes a
run without training; docs/tpu_pods.md has the commands for GPUs, TPUs and pod slices. The same command continues an
interrupted run.

| recipe | starts from | images seen | in training | in evaluation |
|---|---|---|---|---|
| googlenet_cam | weights | 10.2 million (8 epochs) | squashed to 256, random crop of 224 | the middle 224 of 256 |
| resnet50 | random | 115.3 million (90 epochs) | random resized crop of 224 | short side to 256, middle 224 |
| wsol | weights | 12.8 million (10 epochs) | squashed to 256, random crop of 224 | squashed to 224 |

All flip at random; networks for other sizes than 224 keep the proportion. `camjax.training.published` has learning
rates, batches, weight decay and their sources. googlenet_cam is the solver that was released with GoogLeNet-GAP; the
paper's other networks were released without one, and train by it here. `--pool gmp` is GoogLeNet-GMP.

**Errors to expect**, in percent. Table 1 of Zhou et al., top-1 and top-5 on the validation images: VGGnet-GAP 33.4 and
12.2, GoogLeNet-GAP 35.0 and 13.2, AlexNet*-GAP 44.9 and 20.9, AlexNet-GAP 51.1 and 26.3, GoogLeNet-GMP 35.6 and 13.9.
ResNet-50: 23 to 24 top-1 (Goyal et al. 2017: 23.6 with 256 images a batch, 23.7 with 8,192; Flax's example, 100
epochs: 23.3 to 23.7). wsol is about boxes, MaxBoxAccV2 of CAM on ImageNet (Choe et al. 2020): VGG 60.0, Inception 63.4,
ResNet 63.7, the center box 52.5. `camjax evaluate` measures boxes and top-5 errors of a run.

**Hours to expect**: images seen / images a second / 3600. From the literature, for 100 epochs of ResNet-50 in Flax's
example: 4.3 hours on 8 V100 in mixed precision (8,300 images a second), 13.2 in float32, 4.4 on a TPU v3-8, 2.1 on a
v3-32. No hours are published for googlenet_cam and wsol. `--fake-data images --steps 200` measures the images a second
of your machine without its input, `--fake-data jpeg` with decoding and cropping of JPEGs of ImageNet's size.

Our numbers: none yet on ImageNet. The data, published weights and accelerators were not available where this was
written; only the trial on scenes was run, on a CPU.
"""

import os
import shlex
from pathlib import Path
from typing import Any

from camjax.addresses import as_path, is_address
from camjax.class_names import imagenet_class_names
from camjax.cli import training_run
from camjax.data.sources import SourceInfo
from camjax.json_files import read_json
from camjax.models import CamModel
from camjax.models.shapes import model_shapes
from camjax.processes import is_first
from camjax.terminal import Console
from experiments.common.command import start
from experiments.imagenet.data import open_data, training_view
from experiments.imagenet.options import IMAGENET, Options, recipe_of


def starting_model(options: Options, info: SourceInfo) -> CamModel:
    """The network with the weights that training starts from."""
    model = training_run.starting_model(
        options.network,
        options.weights,
        info.num_classes,
        from_scratch=options.from_scratch,
        head=options.head,
        pool=options.pool,
        dtype=options.dtype or ("bfloat16" if options.recipe == "resnet50" else "float32"),
        seed=options.seed,
    )
    # tfds has the ids of ImageNet's synsets, in the same order.
    model.class_names = imagenet_class_names() if info.name == IMAGENET else info.class_names
    return model


def main(options: Options) -> None:
    """Trains, or describes the run without training."""
    options.join()
    console = Console(soft_wrap=True, quiet=not is_first())
    size = model_shapes(options.network).input_size
    train, validation = open_data(options, size)
    out = options.out or (None if options.fake_data else Path("runs", options.network))
    if out is not None and is_address(out):
        out = as_path(out)
    recipe = recipe_of(options, len(train))
    trained = training_run.run_training(
        starting_model(options, train.info),
        train,
        recipe,
        out=out,
        augment=training_view(options, size),
        intervals=options.intervals(len(train) // recipe.batch_size),
        console=console,
        validation=validation,
        workers=options.workers,
        notes=[("data", f"{train.info.name}, {options.train_split} and {options.eval_split}")],
        dry_run=options.dry_run,
    )
    if trained is not None and validation is not None and out is not None and is_first():
        card = read_json(out / "run_card.json", dict[str, Any], advice="Train again.")
        accuracy = card["results"]["eval/accuracy"]
        words = ["camjax", "evaluate", "--dataset", options.dataset, "--split", options.eval_split]
        words += ["--data-dir", str(options.data_dir)] if options.data_dir else []
        words += ["--threshold-step", "0.001"] if options.recipe == "wsol" else []  # as published
        run = str(out) if is_address(out) else os.path.join(".", out)
        console.print(
            f"Top-1 error on {options.eval_split}, {len(validation):,} images: {1 - accuracy:.1%}. "
            f"Curves and settings: {out / 'run_card.md'}\n"
            f"Boxes and top-5 errors: {shlex.join([*words, '--model', run])}"
        )


if __name__ == "__main__":
    start("imagenet", main, Options)
