r"""Table 5 of Zhou et al. 2016: pooled features serve data sets that the network was never trained for, and localize.

    python -m experiments.generic_features --sample                       # a trial without a data set
    python -m experiments.generic_features --action40 DIR --event8 DIR    # EfficientNet-Lite0, works offline
    camjax prepare caltech101 --data-dir DATA                             # once; 0.14 GB to download
    camjax prepare sun397/tfds --data-dir DATA                            # once; 39 GB to download
    python -m experiments.generic_features --data-dir DATA --caltech101 --sun397 DIR --indoor67 DIR --scene15 DIR \
        --sun-attribute DIR --caltech256 DIR --action40 DIR --event8 DIR \
        --model googlenet_gap --weights cam-release  # the paper's network

Features are the global average of the last feature map of a network that was trained on ImageNet alone (section 4), of
the image squashed to the network's input. One-vs-all linear support vector machines are trained on them; their weights
in place of the dense layer's give maps of classes that the network never saw: for actions they show the object that is
acted upon. An option that is given a folder without its data set explains the layout and where to get the data.

Training images of each class, and splits:

    SUN397         397               50        the 10 of its authors
    MIT Indoor67   67                80        its list; the supplement says 100, training and test images together
    Scene15        15                50        10 random
    SUN Attribute  102 attributes    150 + 150 10 random
    Caltech101     101               30        10 random
    Caltech256     256               30        10 random
    Action40       40                100       its lists
    Event8         8                 70        10 random, with 60 test images of each

Both are from the paper's supplement, section 1.2, as far as it was available: its lines on Caltech, on Action40, and on
the 70 of Event8 are from memory. Our choices: test images are all that are left, or listed. Accuracy is the mean over
the classes of their accuracies, as in Lazebnik et al. 2006 and Griffin et al. 2007; the share of all images is in
results.json. Background and clutter of the Caltech sets are not classes. SUN Attribute is scored by average precision,
as in the paper, whose splits we have not seen: ours have as many images with an attribute (two of three votes) as
without (no vote), half of them for training where there are fewer than 300 of each. Features are standardized, and the
SVMs' penalty is chosen by cross-validation on the training images of the first split, and kept for the others.

The paper's numbers in percent, in that order. They are quoted from memory: check them before you quote them again.

    AlexNet, fc7             42.61  56.79  84.23  84.23  87.22  67.23  54.92  94.42
    GoogLeNet, average pool  51.68  66.63  88.02  92.85  92.05  78.99  72.03  95.42
    GoogLeNet-GAP            51.31  66.61  88.30  92.21  91.98  78.07  70.62  95.00

Our numbers: none yet, no data set was available where this was written.

Cost, estimated: each image passes once for all splits, at 70 images/s for Lite0 on two CPU cores: 26 minutes for
SUN397, and 1 to 8 for each of the others. The SVMs take longer: ten fits for each class on the first split and one
on the others, each of 0.5 to 2 s for 6,000 examples (measured on made-up ones), longer for more: minutes for the small
sets, hours for Caltech256 and SUN397; `--splits 1` skips the other splits.

The same command continues where it stopped: features are kept in shards, and each split in results.json.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from camjax.cli.options import Folder, OptionalCount, OptionalFolder, at_least_one
from camjax.errors import InputError
from camjax.models import CamModel
from camjax.processes import is_first
from camjax.terminal import Console
from experiments.common.command import start
from experiments.common.features import stored_features
from experiments.common.sample import announce
from experiments.common.stages import Stages
from experiments.common.svm import SvmOptions, load_svm
from experiments.generic_features.classifiers import examples_figure, run_split
from experiments.generic_features.datasets import DATASETS, SAMPLE, Dataset, splits_of
from experiments.generic_features.images import Images
from experiments.generic_features.table import summary, table5


@dataclass(frozen=True, kw_only=True)
class Options(SvmOptions):
    """Table 5: linear support vector machines on pooled features, on the data sets whose folders are given.

    Attributes:
      sample: A trial on views of a few photographs, without a data set; its results mean nothing.
      data_dir: Where caltech101 and sun397/tfds are prepared; tensorflow-datasets' default if not given.
      sun397: The folder of SUN397's lists Training_01.txt to Testing_10.txt; its images come from --data-dir.
      indoor67: The folder of MIT Indoor67.
      scene15: The folder of Scene15.
      sun_attribute: The folder of SUN Attribute.
      caltech101: Caltech101, from --data-dir.
      caltech256: The folder of Caltech256.
      action40: The folder of Stanford Action40.
      event8: The folder of UIUC Event8.
      out: Where features, results and figures go. The same command continues where it stopped.
      splits: Only the first N splits of each data set.
    """

    sample: bool = False
    data_dir: OptionalFolder = None
    sun397: OptionalFolder = None
    indoor67: OptionalFolder = None
    scene15: OptionalFolder = None
    sun_attribute: OptionalFolder = None
    caltech101: bool = False
    caltech256: OptionalFolder = None
    action40: OptionalFolder = None
    event8: OptionalFolder = None
    out: Folder = Path("runs/generic_features")
    splits: OptionalCount = None

    def __post_init__(self):
        at_least_one(self, "batch_size", "splits")
        names, given = (
            ", ".join(f"--{dataset.name.replace('_', '-')}" for dataset in datasets)
            for datasets in (DATASETS, self.datasets)
        )
        if self.sample and given:
            raise InputError(f"--sample with {given}: leave out one or the other.")
        if not self.sample and not given:
            raise InputError(f"no data set: expected at least one of {names}, or --sample.")

    @property
    def datasets(self) -> list[Dataset]:
        """The data sets that are given."""
        return [dataset for dataset in DATASETS if getattr(self, dataset.name)]

    def open(self, dataset: Dataset) -> Images:
        """Opens a data set that is given; see `experiments.generic_features.datasets`."""
        places = [] if dataset.name == "caltech101" else [getattr(self, dataset.name)]
        return dataset.open(*places, *[self.data_dir] * (dataset.name in ("caltech101", "sun397")))


def run(options: Options, opened: Sequence[tuple[Dataset, Images]], console: Console) -> dict[str, dict]:
    """Runs the experiment on open data sets; see the module.

    Returns:
      For each data set its `experiments.generic_features.table.summary`, which is in table5.json as well.
    """
    for dataset, images in opened:
        # Raises for a class with too few images now, not after the features.
        splits_of(dataset, images, np.ones(len(images.labels), bool))
    stages, model = Stages(options.out), options.load_model()
    found = {dataset.name: _run_dataset(options, dataset, images, model, stages, console) for dataset, images in opened}
    if is_first():
        (options.out / "table5.json").write_text(json.dumps(found, indent=2) + "\n")
    console.print(table5(found, options.model))
    console.print(f"Saved {stages.path}, table5.json and figures beside it", soft_wrap=True)
    return found


def _run_dataset(
    options: Options, dataset: Dataset, images: Images, model: CamModel, stages: Stages, console: Console
) -> dict:
    """A row of the table, and its figure."""
    directory = options.out / "features" / dataset.name
    store = stored_features(
        model, images.source, directory, console, batch_size=options.batch_size, title=dataset.title
    )
    subject = {
        "images": len(store),
        "left_out": len(store.unreadable),
        **options.network(model),
        "penalties": list(options.penalties),
    }
    svm_file, figure_file = (options.out / f"{dataset.name}.{suffix}" for suffix in ("npz", "png"))
    splits = splits_of(dataset, images, store.readable)[: options.splits]

    def classify(number: int, penalties: Sequence[tuple[float, ...]]) -> dict:
        def stage() -> dict:
            with console.status(f"{dataset.title}: support vector machines of split {number + 1} of {len(splits)}"):
                numbers, kernel, bias = run_split(store, images, splits[number], penalties)
            if number == 0:
                np.savez(svm_file, kernel=kernel, bias=bias)
            return numbers

        files = [svm_file] if number == 0 else []
        return stages.run(f"{dataset.title}, split {number + 1}", subject, stage, files=files)

    first = classify(0, [options.penalties])
    kept = [(penalty,) for penalty in first["penalty"]]
    results = [first, *(classify(number, kept) for number in range(1, len(splits)))]

    def maps() -> dict:
        figure, shown = examples_figure(model, images, store, *load_svm(svm_file), splits[0], dataset.title)
        figure.savefig(figure_file)
        return {"images": shown}

    stages.run(f"{dataset.title}, figure", subject, maps, files=[figure_file])
    return summary(dataset, len(images.labels), results, store.unreadable)


def main(options: Options) -> None:
    """Opens the data sets, and runs."""
    options.processes.join()
    console = Console(quiet=not is_first())
    if options.sample:
        announce(console, "views of the same few photographs")
        opened = [(SAMPLE, SAMPLE.open())]
    else:
        opened = [(dataset, options.open(dataset)) for dataset in options.datasets]
    run(options, opened, console)


if __name__ == "__main__":
    start("generic_features", main, Options)
