r"""A text detector that was never shown where text is (Zhou et al. 2016, section 4).

    python -m experiments.text_detector --sample                            # a trial without a data set
    python -m experiments.text_detector --svt svt1 --outdoor SUN397 --categories outdoor.txt   # EfficientNet-Lite0
    python -m experiments.text_detector --svt svt1 --outdoor SUN397 --categories outdoor.txt \
        --model googlenet_gap --weights imagenet_googlenetCAM.caffemodel    # the paper's network

**The paper** trains a linear classifier on GAP features of 350 Google Street View images with text, from SVT, against
images of outdoor scenes, drawn at random from SUN; the classifier's map marks the text. It shows pictures (figure 11),
and has no numbers.

**Ours** follows it as far as that goes, with support vector machines on standardized features, whose penalty is chosen
by cross-validation, and measures what the paper shows. For that some images have to be left out of training: those of
SVT's test.xml, with as many scenes as in training (`--negatives`), which no machine has seen.

- *Average precision* of the ranking of these images by decision value: is there text in the image?
- *Pointing game* (Zhang et al. 2016, tolerance 0): the share of test images with text where the map's maximum lies in a
  tagged rectangle. Chance is the rectangles' share of the image.
- *PxAP* (Choe et al. 2020): the area under the precision-recall curve over the pixels of all these maps, each scaled
  from its minimum to its maximum, with the pixels in rectangles as the object. Chance is the rectangles' share again.

SVT tags the words of businesses nearby and leaves other text alone: a map on text without a tag counts as wrong, so
that the last two are too low. Street scenes of SUN may show text, too, which blurs the first.

**Data.** SVT is http://www.iapr-tc11.org/dataset/SVT/svt.zip: 349 images by its page, 100 of them in train.xml from
memory. SUN397 is https://vision.princeton.edu/projects/2010/SUN/: 108,754 images of 397 categories. outdoor.txt names
the outdoor ones of them, a line each as in its ClassName.txt (/a/abbey); which they are, SUN's hierarchy tells, or your
choice. A folder of outdoor scenes alone does without it.

Ours: not run, for the data was not at hand where this was written.

Cost, estimated: 2,349 images with the default 1,000 scenes in each part, at 70 images/s for Lite0 on two CPU cores:
under a minute where decoding keeps up; SVT's images are large. The machine takes seconds.

The same command goes on where it stopped: features are kept in shards, and each stage in results.json.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich import box as boxes_of_rich
from rich.console import Console
from rich.table import Table
from sklearn.metrics import average_precision_score

import camjax
from camjax.cli.errors import run_command
from camjax.features.pooled import with_linear_classifier
from camjax.features.store import FeatureStore, extract_features
from camjax.features.svm import PENALTIES, fit_linear_svm
from camjax.weights.fingerprint import weights_sha256
from experiments.common.progress import progress
from experiments.common.sample import NAME as SAMPLE
from experiments.common.stages import Stages
from experiments.text_detector.images import TextImages, open_text_images
from experiments.text_detector.maps import WITH_TEXT, score_maps, top_figure
from experiments.text_detector.sample import TextCollages

PROGRAM = "python -m experiments.text_detector"

_Path = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """A text detector from images with text and images without, and where its maps fall.

    Attributes:
      sample: A trial on collages of a few photographs, without a data set; its numbers mean nothing.
      svt: The folder svt1 of Street View Text.
      outdoor: A folder of images of outdoor scenes, such as SUN397's.
      categories: A text file with the folders of --outdoor to take, one a line; all if not given.
      negatives: Images of --outdoor for training, and again for testing.
      model: A network of `camjax models`, or the directory of a training run.
      weights: A file of its weights, or an address (hf://, https://). EfficientNet-Lite needs none.
      out: Where features, results and the figure go; the same command goes on where it stopped.
      penalties: Candidates for the support vector machine's penalty, scikit-learn's C.
      batch_size: Images at a time.
    """

    sample: bool = False
    svt: _Path = None
    outdoor: _Path = None
    categories: _Path = None
    negatives: Annotated[int, tyro.conf.arg(metavar="N")] = 1000
    model: Annotated[str, tyro.conf.arg(metavar="NAME|RUN")] = "efficientnet_lite0"
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/text_detector")
    penalties: Annotated[tuple[float, ...], tyro.conf.arg(metavar="C...")] = PENALTIES
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 32

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"--batch-size {self.batch_size}: expected at least 1.")
        if self.sample and (self.svt or self.outdoor or self.categories):
            raise ValueError("--sample with a folder: leave out one or the other.")
        if not self.sample and not (self.svt and self.outdoor):
            raise ValueError("expected --svt and --outdoor, or --sample.")


def run(options: Options, train: TextImages, test: TextImages, console: Console) -> dict[str, float]:
    """The experiment on images that are open; see the module.

    Returns:
      What `rank` and `score_maps` say.
    """
    stages, model = Stages(options.out), camjax.load_model(options.model, options.weights)
    stores = []
    for part, images in (("training", train), ("test", test)):
        with progress(f"features of {part} images", console) as update:
            directory = options.out / "features" / part
            store = extract_features(model, images.source, directory, batch_size=options.batch_size, progress=update)
        if store.unreadable:
            some = "; ".join(list(store.unreadable.values())[:3])
            console.print(f"{len(store.unreadable)} {part} images can't be read and are left out: {some}")
        stores.append(store)
    svm_file = options.out / "svm.npz"
    subject = {
        "dataset": train.source.info.name,
        "splits": [images.source.info.split for images in (train, test)],
        "images": [len(store) for store in stores],
        "left_out": [len(store.unreadable) for store in stores],
        "negatives": [int((images.labels == 0).sum()) for images in (train, test)],
        "model": options.model,
        "weights_sha256": weights_sha256(model),
        "penalties": list(options.penalties),
    }

    def fit() -> dict:
        labels = train.labels[stores[0].readable]
        svm = fit_linear_svm(stores[0][stores[0].readable], labels, 2, penalties=options.penalties)
        np.savez(svm_file, kernel=svm.kernel, bias=svm.bias)
        return {"penalty": svm.penalty, **rank(svm.decision_values(stores[1][:])[:, WITH_TEXT], test, stores[1])}

    ranked = stages.run("detector", subject, fit, files=[svm_file])
    svm = np.load(svm_file)
    detector = with_linear_classifier(model, svm["kernel"], svm["bias"])
    scored = stages.run("maps", subject, lambda: score_maps(detector, test, options.batch_size, console))
    results = {**ranked, **scored}
    console.print(results_table(results, options.model, train.source.info.name))
    decisions = stores[1][:] @ svm["kernel"][:, WITH_TEXT] + svm["bias"][WITH_TEXT]
    top_figure(detector, test, decisions).savefig(options.out / "text.png")
    console.print(f"Saved {stages.path}, and text.png beside it", soft_wrap=True)
    return results


def rank(decisions: np.ndarray, test: TextImages, store: FeatureStore) -> dict[str, float]:
    """average_precision of the readable images' ranking by decision values (n,), and that of chance, in percent."""
    labels = test.labels[store.readable]
    return {
        "average_precision": 100 * float(average_precision_score(labels, decisions[store.readable])),
        "average_precision_chance": 100 * float(labels.mean()),
    }


def results_table(results: dict[str, float], network: str, dataset: str) -> Table:
    """Ours beside chance, in percent."""
    table = Table("", f"ours, {network}", "chance", box=boxes_of_rich.SIMPLE_HEAD)
    table.title = f"Text detector trained without boxes, on {dataset} (%)"
    for name, ours, chance in (
        ("average precision of test images", "average_precision", "average_precision_chance"),
        ("pointing game, maximum on tagged text", "pointing_game", "boxes_share"),
        ("PxAP, pixels of tagged text", "PxAP", "boxes_share"),
    ):
        table.add_row(name, f"{results[ours]:.1f}", f"{results[chance]:.1f}")
    return table


def main(options: Options) -> None:
    """Opens the images, and runs."""
    console = Console(highlight=False)
    if options.sample:
        console.print(f"This is a {SAMPLE}: collages of a few photographs. Its numbers mean nothing.\n")
        parts = [TextImages(part, part.labels, part.boxes) for part in map(TextCollages, ("train", "test"))]
    else:
        parts = open_text_images(options.svt, options.outdoor, options.categories, options.negatives)
    run(options, *parts, console)


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, lambda: main(tyro.cli(Options, prog=PROGRAM))))
