r"""Concept localization in weakly labeled images (section 4 of Zhou et al. 2016): from phrases of captions to maps.

    python -m experiments.concepts --sample                                   # a trial without a data set
    camjax prepare coco_captions --data-dir DATA                              # once; 38 GB to download, 19 GB prepared
    python -m experiments.concepts --data-dir DATA                            # EfficientNet-Lite0, works offline
    python -m experiments.concepts --data-dir DATA --model googlenet_gap --weights imagenet_googlenetCAM.caffemodel \
        --phrases "mirror in lake" "view out of window"                       # the paper's network and its phrases
    python -m experiments.concepts --captions captions.csv --images DIR       # any images with captions

Nobody has drawn where a concept is, nor even said which images have it: all that is known are captions. As in the
paper, which follows ConceptLearner (Zhou et al. 2015, arXiv:1411.5328), a detector of a phrase is a linear support
vector machine on the pooled features of images whose caption has the phrase, against random others, with hard-negative
mining; its weights in place of the dense layer's give maps of where the phrase is.

Our choices. A phrase is 1 to 4 words in a row, in one sentence of a caption, in any case. Without `--phrases` those
are taken that most training images have (though not more than half of them), so many of each number of words, and that
neither begin nor end with a word such as "of". An image is a positive if any of its captions has the phrase, and is
then never a negative. A quarter of the images, drawn at random, is held out. Of the others, as many random negatives as
there are positives make the first detector; each of three rounds adds as many at most of those that it takes for
positives, the highest scores first. The penalty is chosen by cross-validation of the first detector.

The held-out images are ranked by each detector: average precision, which counts an image as right only if somebody
mentioned the phrase, is far from 100 % for concepts that captions often leave out. Chance is the share of images that
have the phrase. Images that show a concept and do not mention it are hard negatives too: where captions leave out much,
mining may cost precision, and the table has that of the first detector beside it. Figures show the images that rank
first, with their maps, right or wrong.

The paper shows examples and has no numbers. Ours: not run on MS COCO, which was not at hand where this was written.

Cost for the 82,783 images of coco_captions' "train" (sizes are those of the tfds catalog): estimated, 20 minutes of
features at 70 images/s for Lite0 on two CPU cores, and some minutes for each phrase that thousands of images have.
Features are kept in shards and each phrase in results.json: the same command goes on where it stopped.
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

import camjax
from camjax.cli.errors import run_command
from camjax.features.store import extract_features
from camjax.features.svm import PENALTIES
from camjax.weights.fingerprint import weights_sha256
from experiments.common.progress import progress
from experiments.common.stages import Stages
from experiments.concepts.captions import CaptionedImages, open_coco, open_csv
from experiments.concepts.detectors import FOLDS, concept_figures, concept_table, run_concept
from experiments.concepts.phrases import checked_phrases, frequent_phrases, normalized
from experiments.concepts.sample import sample_captions

PROGRAM = "python -m experiments.concepts"

_Path = tyro.conf.arg(metavar="PATH", help_behavior_hint="")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Detectors of the phrases of captions, and maps of where they are.

    Attributes:
      sample: A trial on views of a few photographs with captions of our own; its numbers mean nothing.
      data_dir: Where coco_captions is prepared; tensorflow-datasets' own place if not given.
      split: Of coco_captions, such as train+restval.
      captions: A CSV file with the columns image and caption, in place of coco_captions.
      images: The folder of its images.
      phrases: Phrases to detect; those that are frequent if not given.
      num_phrases: Frequent phrases of each number of words.
      words: Fewest and most words of a frequent phrase.
      min_images: Fewest training images of a frequent phrase; 100, or 8 of the sample, if not given.
      held_out: The share of the images that detectors are tested on.
      negatives: Random negatives for each positive, and the most that a round of mining adds.
      rounds: Of hard-negative mining.
      shown: Images of each figure, those that rank first.
      model: A network of `camjax models`, or the directory of a training run.
      weights: A file of its weights, or an address (hf://, https://). EfficientNet-Lite needs none.
      out: Where features, results and figures go; the same command goes on where it stopped.
      penalties: Candidates for the support vector machines' penalty, scikit-learn's C.
      batch_size: Images at a time, for features.
      seed: Of the images held out, and of the random negatives.
    """

    sample: bool = False
    data_dir: Annotated[Path | None, _Path] = None
    split: Annotated[str, tyro.conf.arg(metavar="NAME")] = "train"
    captions: Annotated[Path | None, _Path] = None
    images: Annotated[Path | None, _Path] = None
    phrases: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PHRASE...", help_behavior_hint="")] = ()
    num_phrases: Annotated[int, tyro.conf.arg(metavar="N")] = 4
    words: Annotated[tuple[int, int], tyro.conf.arg(metavar="N N")] = (1, 4)
    min_images: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    held_out: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.25
    negatives: Annotated[float, tyro.conf.arg(metavar="RATIO")] = 1.0
    rounds: Annotated[int, tyro.conf.arg(metavar="N")] = 3
    shown: Annotated[int, tyro.conf.arg(metavar="N")] = 6
    model: Annotated[str, tyro.conf.arg(metavar="NAME|RUN")] = "efficientnet_lite0"
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/concepts")
    penalties: Annotated[tuple[float, ...], tyro.conf.arg(metavar="C...")] = PENALTIES
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 32
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0

    def __post_init__(self):
        for name in ("num_phrases", "shown", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value}: expected at least 1.")
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
        if (self.captions is None) != (self.images is None) or (self.sample and self.captions):
            raise ValueError("expected --captions together with --images, or neither; and without --sample.")

    def open(self, console: Console) -> CaptionedImages:
        """The images that are asked for."""
        if self.sample:
            console.print(
                "A sample: views of a few photographs, to see what the experiment does. Its numbers mean nothing."
            )
            return sample_captions()
        if self.captions:
            return open_csv(self.captions.expanduser(), self.images.expanduser())
        with progress("captions", console) as update:
            return open_coco(self.split, data_dir=self.data_dir, progress=update)


def run(options: Options, images: CaptionedImages, console: Console) -> list[dict]:
    """The experiment on the images given; see the module.

    Returns:
      What `experiments.concepts.detectors.run_concept` says of each phrase, which is in results.json too.
    """
    stages, model = Stages(options.out), camjax.load_model(options.model, options.weights)
    with progress("features", console) as update:
        store = extract_features(
            model, images.source, options.out / "features", batch_size=options.batch_size, progress=update
        )
    if store.unreadable:
        some = "; ".join(list(store.unreadable.values())[:3])
        console.print(f"{len(store.unreadable)} images can't be read and are left out: {some}", soft_wrap=True)
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
        "model": options.model,
        "weights_sha256": weights_sha256(model),
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
    sys.exit(run_command(PROGRAM, lambda: main(tyro.cli(Options, prog=PROGRAM))))
