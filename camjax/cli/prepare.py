"""`camjax prepare`: prepares a data set of tensorflow-datasets for camjax."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import tyro

from camjax.cli.options import Flag, OptionalFolder
from camjax.errors import require_extra


def prepare(
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    /,
    *,
    data_dir: OptionalFolder = None,
    archives: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", aliases=["--manual-dir"], help_behavior_hint="")
    ] = None,
    unverified: Flag = False,
) -> None:
    """Prepare a data set of tensorflow-datasets: fetch its archives, and store it as ArrayRecord files.

    This needs TensorFlow, once: pip install "camjax[prepare]". The archives of caltech_birds2011 (1.2 GB) are
    downloaded unless they are on disk. Those of imagenet2012 (155 GB) have to be fetched by hand, with a login.

    Args:
      dataset: caltech_birds2011, imagenet2012, or any other name that tensorflow-datasets knows.
      data_dir: Where to store it; tensorflow-datasets' default folder if not given.
      archives: A folder with the archives (CUB_200_2011.tgz, ILSVRC2012_img_train.tar, ...), for use without internet.
      unverified: Accept archives that are not the published ones: subsets, or copies that were packed again.
    """
    # The command line's help keeps line breaks of the text above: hence one line for each argument.
    require_extra("prepare", "camjax prepare", "tensorflow_datasets")
    # Imported here: other commands do not need them.
    from absl import logging

    from camjax.cli.prepare_progress import prepare_progress
    from camjax.data.archives import published
    from camjax.data.preparing import prepare as prepare_dataset
    from camjax.terminal import Console

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow describes the CPU and a missing GPU
    logging.set_verbosity(logging.ERROR)  # and tfds the splits that ImageNet is prepared without
    known = published(dataset)
    with prepare_progress(Console(stderr=True), known.counts if known else {}):
        prepared = prepare_dataset(dataset, data_dir=data_dir, archives=archives, verify=not unverified)

    console = Console(soft_wrap=True)
    said = "Prepared {} in {}" if prepared.made else "{} is prepared in {}"
    console.print(said.format(dataset, prepared.directory))
    for split, count in prepared.counts.items():
        expected = known.counts.get(split) if known else None
        note = "" if expected in (None, count) else f"  (published: {expected:,})"
        console.print(f"  {split:12}{count:>11,} examples{note}")
    console.print("", f"Next:\n  {next_command(dataset, prepared.counts, data_dir)}", sep="\n")


def next_command(dataset: str, counts: dict[str, int], data_dir: Path | None) -> str:
    """Returns the command that evaluates a network on a prepared data set.

    Args:
      dataset: its name.
      counts: its splits, and the number of examples of each.
      data_dir: where it is; None is tensorflow-datasets' default folder.
    """
    imagenet = dataset.split(":")[0] == "imagenet2012"
    # ImageNet's validation images have published boxes, and camjax has a pretrained network for its classes.
    wanted = ("validation", "test", "train") if imagenet else ("test", "validation", "train")
    split = next((split for split in wanted if split in counts), next(iter(counts)))
    words = ["camjax", "evaluate", "--dataset", dataset, "--split", split]
    if data_dir is not None:
        words += ["--data-dir", str(data_dir)]
    words += ["--model", "efficientnet_lite0" if imagenet else "RUN"]
    if imagenet and split == "validation":
        words += ["--boxes", "ILSVRC2012_bbox_val_v3.tgz"]
    return shlex.join(words)
