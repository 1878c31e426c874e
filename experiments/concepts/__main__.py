r"""Concept localization in weakly labeled images (Zhou et al. 2016, section 4): from phrases of captions to maps.

    python -m experiments.concepts --sample                                   # a trial without a data set
    camjax prepare coco_captions --data-dir DATA                              # once; 38 GB to download, 19 GB prepared
    python -m experiments.concepts --data-dir DATA                            # EfficientNet-Lite0, works offline
    python -m experiments.concepts --data-dir DATA --model googlenet_gap --weights cam-release \
        --phrases "mirror in lake" "view out of window"                       # the paper's network and its phrases
    python -m experiments.concepts --captions captions.csv --folder DIR       # any images with captions

No boxes and no labels of concepts are given: only captions are known. As in the paper, which
follows ConceptLearner (Zhou et al. 2015, arXiv:1411.5328), the detector of a phrase is a linear support vector machine
on pooled features. Images whose caption has the phrase are the positives, random others the negatives, followed by
hard-negative mining. The SVM's weights in place of the dense layer's give maps of where the phrase is.

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

import numpy as np

from camjax.processes import is_first
from camjax.terminal import Console, progress
from experiments.common.command import start
from experiments.common.features import stored_features
from experiments.common.sample import announce
from experiments.common.stages import Stages
from experiments.concepts.captions import CaptionedImages, open_coco, open_csv
from experiments.concepts.detectors import concept_figures, concept_table, run_concept
from experiments.concepts.options import FOLDS, Options
from experiments.concepts.phrases import checked_phrases, frequent_phrases, normalized
from experiments.concepts.sample import sample_captions


def open_images(options: Options, console: Console) -> CaptionedImages:
    """Opens the images that the options name."""
    if options.sample:
        announce(console, "views of a few photographs")
        return sample_captions()
    if options.captions and options.folder:
        return open_csv(options.captions.expanduser(), options.folder.expanduser())
    with progress("captions", console) as update:
        return open_coco(options.split, data_dir=options.data_dir, progress=update)


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
    if is_first():
        concept_figures(model, images, results, what, options)
    console.print(concept_table(results, options.model, what))
    console.print(f"Saved {stages.path}, detectors and figures beside it", soft_wrap=True)
    return results


def main(options: Options) -> None:
    """Opens the data set, and runs."""
    options.processes.join()
    console = Console(quiet=not is_first())
    run(options, open_images(options, console), console)


if __name__ == "__main__":
    start("concepts", main, Options)
