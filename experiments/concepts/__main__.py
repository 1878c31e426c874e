r"""Concept localization in weakly labeled images (Zhou et al. 2016, section 4): from phrases of captions to maps.

    python -m experiments.concepts --sample                                   # a trial without a data set
    camjax prepare coco_captions --data-dir DATA                              # once; 38 GB to download, 19 GB prepared
    python -m experiments.concepts --data-dir DATA                            # EfficientNet-Lite0, works offline
    python -m experiments.concepts --data-dir DATA --model googlenet_gap --weights imagenet_googlenetCAM.caffemodel \
        --phrases "mirror in lake" "view out of window"                       # the paper's network and its phrases
    python -m experiments.concepts --captions captions.csv --folder DIR       # any images with captions

Nobody has drawn where a concept is, nor even said which images have it: only captions are known. As in the paper, which
follows ConceptLearner (Zhou et al. 2015, arXiv:1411.5328), the detector of a phrase is a linear support vector machine
on pooled features. Images whose caption has the phrase are the positives, random others the negatives, followed by
hard-negative mining. The machine's weights in place of the dense layer's give maps of where the phrase is.

Our choices. A phrase is 1 to 4 words in a row, in one sentence of a caption, in any case. Without `--phrases`, the
phrases that most training images have (though not more than half of them) are taken, a fixed number of each length;
none begins or ends with a word such as "of". An image is a positive if any of its captions has the phrase, and is then
never a negative. A quarter of the images, drawn at random, is held out. The first detector is trained with as many
random negatives as there are positives; each of three rounds adds at most as many again, those that it wrongly takes
for positives, highest scores first. The penalty is chosen by cross-validation of the first detector.

The held-out images are ranked by each detector. Average precision counts an image as right only if somebody mentioned
the phrase, so it is far from 100 % for concepts that captions often leave out. Chance is the share of images that have
the phrase. Images that show a concept and do not mention it become hard negatives too: where captions leave out much,
mining may cost precision, so the table also has the precision of the first detector. Figures show the images that rank
first, with their maps, right or wrong.

The paper shows examples and has no numbers. Our numbers: none yet, MS COCO was not available where this was written.

Cost for the 82,783 images of coco_captions' "train" (sizes are from the tfds catalog): estimated, 20 minutes of
features at 70 images/s for Lite0 on two CPU cores, and some minutes for each phrase that thousands of images have.

The same command continues where it stopped: features are kept in shards, and each phrase in results.json.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from rich.console import Console

from experiments.common.command import start
from experiments.common.features import stored_features
from experiments.common.options import (
    Count,
    Folder,
    OptionalCount,
    OptionalFolder,
    OptionalPath,
    Share,
    arg,
    at_least_one,
)
from experiments.common.progress import progress
from experiments.common.sample import announce
from experiments.common.stages import Stages
from experiments.common.svm import SvmOptions
from experiments.concepts.captions import CaptionedImages, open_coco, open_csv
from experiments.concepts.detectors import FOLDS, concept_figures, concept_table, run_concept
from experiments.concepts.phrases import checked_phrases, frequent_phrases, normalized
from experiments.concepts.sample import sample_captions


@dataclass(frozen=True, kw_only=True)
class Options(SvmOptions):
    """Detectors of the phrases of captions, and maps of where the phrases are.

    Attributes:
      sample: A trial on views of a few photographs, with our own captions; its results mean nothing.
      data_dir: Where coco_captions is prepared; tensorflow-datasets' own place if not given.
      split: Of coco_captions, such as train+restval.
      captions: A CSV file with the columns image and caption, in place of coco_captions.
      folder: The folder of its images.
      phrases: Phrases to detect; the frequent ones if not given.
      num_phrases: Frequent phrases of each number of words.
      words: Fewest and most words of a frequent phrase.
      min_images: Fewest training images of a frequent phrase; 100, or 8 of the sample, if not given.
      held_out: The share of the images that detectors are tested on.
      negatives: Random negatives for each positive, and the most that a round of mining adds.
      rounds: Of hard-negative mining.
      shown: Images in each figure, those that rank first.
      out: Where features, results and figures go. The same command continues where it stopped.
      seed: Of the images held out, and of the random negatives.
    """

    sample: bool = False
    data_dir: OptionalFolder = None
    split: Annotated[str, arg("SPLIT")] = "train"
    captions: OptionalPath = None
    folder: OptionalFolder = None
    phrases: Annotated[tuple[str, ...], arg("PHRASE...", default=False)] = ()
    num_phrases: Count = 4
    words: Annotated[tuple[int, int], arg("N N")] = (1, 4)
    min_images: OptionalCount = None
    held_out: Share = 0.25
    negatives: Annotated[float, arg("RATIO")] = 1.0
    rounds: Count = 3
    shown: Count = 6
    out: Folder = Path("runs/concepts")
    seed: Count = 0

    def __post_init__(self):
        at_least_one(self, "num_phrases", "shown", "batch_size")
        if self.min_images is not None and self.min_images < FOLDS:
            raise ValueError(
                f"--min-images {self.min_images}: expected at least {FOLDS}, one for each part of {FOLDS}."
            )
        if not 1 <= self.words[0] <= self.words[1]:
            raise ValueError(f"--words {self.words[0]} {self.words[1]}: expected the fewest and the most, at least 1.")
        if not 0 < self.held_out < 1 or not self.negatives > 0 or self.rounds < 0:
            raise ValueError(
                f"--held-out {self.held_out:g} --negatives {self.negatives:g} --rounds {self.rounds}: expected a share "
                "between 0 and 1, a number above 0, and one that is not negative."
            )
        if (self.captions is None) != (self.folder is None) or (self.sample and self.captions):
            raise ValueError("expected --captions together with --folder, or neither; and without --sample.")

    def open(self, console: Console) -> CaptionedImages:
        """Opens the images that the options name."""
        if self.sample:
            announce(console, "views of a few photographs")
            return sample_captions()
        if self.captions and self.folder:
            return open_csv(self.captions.expanduser(), self.folder.expanduser())
        with progress("captions", console) as update:
            return open_coco(self.split, data_dir=self.data_dir, progress=update)


def run(options: Options, images: CaptionedImages, console: Console) -> list[dict]:
    """Runs the experiment on the given images; see the module.

    Returns:
      For each phrase the results of `experiments.concepts.detectors.run_concept`, which are in results.json too.
    """
    stages, model = Stages(options.out), options.load_model()
    store = stored_features(model, images.source, options.out / "features", console, batch_size=options.batch_size)
    texts = [normalized(captions) for captions in images.captions]
    rows = np.random.default_rng(options.seed).permutation(np.flatnonzero(store.readable))
    held_out, training = np.split(rows, [round(options.held_out * len(rows))])
    of_training = [texts[row] for row in training]
    if options.phrases:
        phrases = checked_phrases(options.phrases, of_training, least=FOLDS)
    else:
        least = options.min_images or (8 if options.sample else 100)
        phrases = frequent_phrases(of_training, options.num_phrases, min_images=least, lengths=options.words)
    subject = {
        "dataset": images.source.info.name,
        "split": images.source.info.split,
        "captions_sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        "images": [len(training), len(held_out), len(store.unreadable)],
        **options.network(model),
        **{name: getattr(options, name) for name in ("held_out", "negatives", "rounds", "penalties", "seed")},
    }
    results = []
    for number, phrase in enumerate(phrases):
        file = options.out / "detectors" / f"{phrase.replace(' ', '-')}.npz"
        has_phrase = np.array([normalized([phrase]) in text for text in texts])

        def stage(has_phrase=has_phrase, file=file) -> dict:
            return run_concept(store, images.image_ids, has_phrase, training, held_out, file, options)

        with console.status(f"{phrase}, {number + 1} of {len(phrases)}"):
            results.append({"phrase": phrase, **stages.run(f"concept {phrase}", subject, stage, files=[file])})
    what = "a sample, whose numbers mean nothing" if options.sample else images.source.info.name
    concept_figures(model, images, results, what, options)
    console.print(concept_table(results, options.model, what))
    console.print(f"Saved {stages.path}, detectors and figures beside it", soft_wrap=True)
    return results


def main(options: Options) -> None:
    """Opens the data set, and runs."""
    console = Console(highlight=False)
    run(options, options.open(console), console)


if __name__ == "__main__":
    start("concepts", main, Options)
