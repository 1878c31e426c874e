r"""A text detector that was never shown where text is (Zhou et al. 2016, section 4).

    python -m experiments.text_detector --sample                            # a trial without a data set
    python -m experiments.text_detector --svt svt1 --outdoor SUN397 --categories outdoor.txt   # EfficientNet-Lite0
    python -m experiments.text_detector --svt svt1 --outdoor SUN397 --categories outdoor.txt \
        --model googlenet_gap --weights cam-release    # the paper's network

**The paper** trains a linear classifier on GAP features of 350 Google Street View images with text, from SVT, against
random images of outdoor scenes from SUN; the classifier's map marks the text. It shows pictures (figure 11), and has no
numbers.

**Ours** follows the paper as far as it goes, with support vector machines on standardized features, whose penalty is
chosen by cross-validation, and measures what the paper shows. That needs images outside of training: those of SVT's
test.xml, and as many outdoor scenes as in training (`--num-negatives`), none of them used in training.

- *Average precision* of the ranking of these images by decision value: is there text in the image?
- *Pointing game* (Zhang et al. 2016, tolerance 0): the share of test images with text where the map's maximum lies in a
  tagged rectangle. Chance is the rectangles' share of the image.
- *PxAP* (Choe et al. 2020): the area under the precision-recall curve over the pixels of all these maps, each scaled
  from its minimum to its maximum, with the pixels in rectangles as the object. Chance is the rectangles' share again.

SVT tags only the words of businesses nearby: a map on other text counts as wrong, so the last two numbers are too low.
Street scenes of SUN may show text, too, which blurs the first.

**Data.** SVT is http://www.iapr-tc11.org/dataset/SVT/svt.zip: 349 images by its page, 100 of them in train.xml from
memory. SUN397 is https://vision.princeton.edu/projects/2010/SUN/: 108,754 images of 397 categories. outdoor.txt names
the outdoor categories, one a line as in SUN's ClassName.txt (/a/abbey), by SUN's hierarchy or by your own choice. With
a folder that has only outdoor scenes it is not needed.

Our numbers: none yet, the data was not available where this was written.

Cost, estimated: 2,349 images with the default 1,000 scenes in each part, at 70 images/s for Lite0 on two CPU cores:
under a minute if decoding keeps up; SVT's images are large. The SVM takes seconds.

The same command continues where it stopped: features are kept in shards, and each stage in results.json.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from sklearn.metrics import average_precision_score

from camjax.cli.options import Count, Folder, OptionalFolder, OptionalPath, at_least_one
from camjax.errors import InputError
from camjax.features import FeatureStore
from camjax.features.svm import fit_linear_svm
from camjax.processes import is_first
from camjax.terminal import Console
from experiments.common.command import start
from experiments.common.features import stored_features
from experiments.common.sample import announce
from experiments.common.stages import Stages
from experiments.common.svm import SvmOptions, load_localizer, load_svm, save_svm
from experiments.common.table import result_table
from experiments.text_detector.images import TextImages, open_text_images
from experiments.text_detector.maps import WITH_TEXT, score_maps, top_figure
from experiments.text_detector.sample import TextCollages


@dataclass(frozen=True, kw_only=True)
class Options(SvmOptions):
    """A text detector trained on images with and without text, and where its maps fall.

    Attributes:
      sample: A trial on collages of a few photographs, without a data set; its results mean nothing.
      svt: The folder svt1 of Street View Text.
      outdoor: A folder of images of outdoor scenes, such as SUN397's.
      categories: A text file with the sub-folders of --outdoor to take, one a line; all if not given.
      num_negatives: Images of --outdoor for training, and again for testing.
      out: Where features, results and the figure go. The same command continues where it stopped.
    """

    sample: bool = False
    svt: OptionalFolder = None
    outdoor: OptionalFolder = None
    categories: OptionalPath = None
    num_negatives: Count = 1000
    out: Folder = Path("runs/text_detector")

    def __post_init__(self):
        at_least_one(self, "batch_size")
        if self.sample and (self.svt or self.outdoor or self.categories):
            raise InputError("--sample with a folder: leave out one or the other.")
        if not self.sample and not (self.svt and self.outdoor):
            raise InputError("expected --svt and --outdoor, or --sample.")


def run(options: Options, train: TextImages, test: TextImages, console: Console) -> dict[str, float]:
    """Runs the experiment on open images; see the module.

    Returns:
      The results of `rank` and `score_maps`.
    """
    stages, model = Stages(options.out), options.load_model()
    stores = [
        stored_features(
            model, images.source, options.out / "features" / part, console, batch_size=options.batch_size, title=part
        )
        for part, images in (("training", train), ("test", test))
    ]
    svm_file = options.out / "svm.npz"
    subject = {
        "dataset": train.source.info.name,
        "splits": [images.source.info.split for images in (train, test)],
        "images": [len(store) for store in stores],
        "left_out": [len(store.unreadable) for store in stores],
        "negatives": [int((images.labels == 0).sum()) for images in (train, test)],
        **options.network(model),
        "penalties": list(options.penalties),
    }

    def fit() -> dict:
        labels = train.labels[stores[0].readable]
        svm = fit_linear_svm(stores[0][stores[0].readable], labels, 2, penalties=options.penalties)
        save_svm(svm_file, svm)
        readable, decisions = stores[1].readable, np.full(len(test.labels), np.nan, np.float32)
        decisions[readable] = svm.decision_values(stores[1][readable])[:, WITH_TEXT]
        return {"penalty": svm.penalty, **rank(decisions, test, stores[1])}

    ranked = stages.run("detector", subject, fit, files=[svm_file])
    detector = load_localizer(model, svm_file)
    scored = stages.run("maps", subject, lambda: score_maps(detector, test, options.batch_size, console), together=True)
    results = {**ranked, **scored}
    console.print(results_table(results, options.model, train.source.info.name))
    if is_first():
        kernel, bias = load_svm(svm_file)
        decisions = stores[1][:] @ kernel[:, WITH_TEXT] + bias[WITH_TEXT]
        top_figure(detector, test, decisions).savefig(options.out / "text.png")
    console.print(f"Saved {stages.path}, and text.png beside it", soft_wrap=True)
    return results


def rank(decisions: np.ndarray, test: TextImages, store: FeatureStore) -> dict[str, float]:
    """Average precision of the readable images ranked by decision values (n,), and that of chance, in percent."""
    labels = test.labels[store.readable]
    return {
        "average_precision": 100 * float(average_precision_score(labels, decisions[store.readable])),
        "average_precision_chance": 100 * float(labels.mean()),
    }


def results_table(results: dict[str, float], network: str, dataset: str) -> Table:
    """Our results and chance, in percent."""
    table = result_table(f"Text detector trained without boxes, on {dataset} (%)", f"ours, {network}", "chance")
    for name, ours, chance in (
        ("average precision of test images", "average_precision", "average_precision_chance"),
        ("pointing game, maximum on tagged text", "pointing_game", "boxes_share"),
        ("PxAP, pixels of tagged text", "PxAP", "boxes_share"),
    ):
        table.add_row(name, f"{results[ours]:.1f}", f"{results[chance]:.1f}")
    return table


def main(options: Options) -> None:
    """Opens the images, and runs."""
    options.processes.join()
    console = Console(quiet=not is_first())
    if options.svt and options.outdoor:
        train, test = open_text_images(options.svt, options.outdoor, options.categories, options.num_negatives)
    else:
        announce(console, "collages of a few photographs")
        train, test = (TextImages(part, part.labels, part.boxes) for part in map(TextCollages, ("train", "test")))
    run(options, train, test, console)


if __name__ == "__main__":
    start("text_detector", main, Options)
