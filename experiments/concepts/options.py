"""The options of `python -m experiments.concepts`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from camjax.cli.options import Count, Folder, OptionalCount, OptionalFolder, OptionalPath, Share, arg, at_least_one
from camjax.errors import InputError
from experiments.common.svm import SvmOptions

FOLDS = 3
"""Parts of the cross-validation of a detector."""


@dataclass(frozen=True, kw_only=True)
class Options(SvmOptions):
    """Detectors of the phrases of captions, and maps of where the phrases are.

    Attributes:
      sample: A trial on views of a few photographs, with our own captions; its results mean nothing.
      data_dir: Where coco_captions is prepared; tensorflow-datasets' default if not given.
      split: A split of coco_captions, such as train+restval.
      captions: A CSV file with the columns image and caption, in place of coco_captions.
      folder: The folder of its images.
      phrases: Phrases to detect; the frequent ones if not given.
      num_phrases: Frequent phrases of each number of words.
      words: Fewest and most words of a frequent phrase.
      min_images: Fewest training images of a frequent phrase; 100, or 8 of the sample, if not given.
      held_out: The share of the images that detectors are tested on.
      negatives: Random negatives for each positive, and the most that a round of mining adds.
      rounds: Number of rounds of hard-negative mining.
      shown: Images in each figure, those that rank first.
      out: Where features, results and figures go. The same command continues where it stopped.
      seed: Seed of the choice of held-out images and random negatives.
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
            raise InputError(
                f"--min-images {self.min_images}: expected at least {FOLDS}, one for each part of {FOLDS}."
            )
        if not 1 <= self.words[0] <= self.words[1]:
            raise InputError(f"--words {self.words[0]} {self.words[1]}: expected the fewest and the most, at least 1.")
        if not 0 < self.held_out < 1 or not self.negatives > 0 or self.rounds < 0:
            raise InputError(
                f"--held-out {self.held_out:g} --negatives {self.negatives:g} --rounds {self.rounds}: expected a share "
                "between 0 and 1, a number above 0, and one that is not negative."
            )
        if (self.captions is None) != (self.folder is None) or (self.sample and self.captions):
            raise InputError("expected --captions together with --folder, or neither; and without --sample.")
