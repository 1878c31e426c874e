"""The detector of a phrase: training, test and figure; see `experiments/concepts/__main__.py`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table
from sklearn.metrics import average_precision_score

from camjax.features import FeatureStore, with_linear_classifier
from camjax.inference import make_cam_fn
from camjax.models import CamModel
from experiments.common.map_figure import map_figure, squashed
from experiments.common.svm import load_svm
from experiments.common.table import result_table
from experiments.concepts.captions import CaptionedImages
from experiments.concepts.hard_negatives import concept_scores, mine_hard_negatives
from experiments.concepts.options import FOLDS, Options

RANKED = 50
"""Images of a ranking that are kept."""


def run_concept(
    store: FeatureStore,
    image_ids: Sequence[str],
    has_phrase: np.ndarray,
    training: np.ndarray,
    held_out: np.ndarray,
    file: Path,
    options: Options,
) -> dict:
    """Trains the detector of a phrase, and ranks the held-out images by it.

    Args:
      store: features of n images.
      image_ids: n.
      has_phrase: (n,) bool.
      training: rows of the images to train on.
      held_out: rows of the others.
      file: where the detector is written, as kernel (K,) and bias ().
      options: of the experiment.

    Returns:
      positives: training images with the phrase.
      random_negatives, mined: negatives, in all rounds together.
      held_out: images, and with_phrase, those of them that have it.
      average_precision: in percent, before mining and after each round; empty where no held-out image has the phrase.
      penalty: the chosen one, and cross_validation, penalty -> accuracy in percent.
      ranking: row, id, score and has_phrase of the held-out images that score highest.
    """
    positives, others = training[has_phrase[training]], training[~has_phrase[training]]
    wanted = max(FOLDS, round(options.negatives * len(positives)))
    detector = mine_hard_negatives(
        store,
        positives,
        others,
        image_ids,
        random_negatives=wanted,
        hard_negatives=wanted,
        rounds=options.rounds,
        penalties=options.penalties,
        folds=FOLDS,
        seed=options.seed,
    )
    right = has_phrase[held_out]
    scores = [concept_scores(svm, store, held_out) for svm in detector.svms]
    best = np.argsort(-scores[-1], kind="stable")[:RANKED]
    first, last = detector.svms[0], detector.svms[-1]
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, kernel=last.kernel[:, 1], bias=last.bias[1])
    return {
        "positives": len(positives),
        "random_negatives": len(detector.negatives) - sum(detector.added),
        "mined": sum(detector.added),
        "held_out": len(held_out),
        "with_phrase": int(right.sum()),
        "average_precision": [100 * float(average_precision_score(right, of)) for of in scores] if right.any() else [],
        "penalty": first.penalty,
        "cross_validation": {f"{penalty:g}": 100 * value for penalty, value in first.cross_validation.items()},
        "ranking": [
            {
                "row": int(held_out[place]),
                "id": image_ids[held_out[place]],
                "score": round(float(scores[-1][place]), 4),
                "has_phrase": bool(right[place]),
            }
            for place in best
        ],
    }


def concept_figures(
    model: CamModel, images: CaptionedImages, results: Sequence[dict], what: str, options: Options
) -> list[Path]:
    """Draws for each phrase the held-out images that rank first, with the detector's maps.

    Args:
      model: gives the features of the detectors.
      images: all of them.
      results: of `run_concept`, each with its phrase.
      what: the data set, in words.
      options: of the experiment.

    Returns:
      The files.
    """
    detectors = [load_svm(options.out / "detectors" / f"{_file_name(result)}.npz") for result in results]
    kernels, biases = zip(*detectors, strict=True)
    cam_fn = make_cam_fn(with_linear_classifier(model, np.stack(kernels, axis=1), np.stack(biases)))
    files = []
    for number, result in enumerate(results):
        top = result["ranking"][: options.shown]
        pictures = [images.source[image["row"]]["image"] for image in top]
        inputs = squashed(pictures, model.input_size)
        maps = np.asarray(cam_fn(inputs, np.full(len(top), number, np.int32)).maps)[:, 0]
        titles = [
            f"{place}. {'with' if image['has_phrase'] else 'without'} the phrase, score {image['score']:.2f}"
            for place, image in enumerate(top, start=1)
        ]
        heading = f'"{result["phrase"]}": the held-out images that rank first ({what})'
        files.append(options.out / f"{_file_name(result)}.png")
        map_figure(pictures, list(maps), titles, heading).savefig(files[-1])
    return files


def _file_name(result: dict) -> str:
    return result["phrase"].replace(" ", "-")


def concept_table(results: Sequence[dict], network: str, what: str) -> Table:
    """Average precisions of the phrases; empty for a phrase that no held-out image has.

    Args:
      results: as in `concept_figures`.
      network: the name of ours.
      what: the data set, in words.
    """
    columns = "positives", "negatives,\nand mined", "held out\nwith it", "AP (%)", "before\nmining", "chance"
    table = result_table(f"Concepts of captions, {network}: {what}", *columns)
    table.columns[0].header = "phrase"
    for result in results:
        precisions = result["average_precision"]
        shown = [precisions[-1], precisions[0], 100 * result["with_phrase"] / result["held_out"]] if precisions else []
        table.add_row(
            result["phrase"],
            str(result["positives"]),
            f"{result['random_negatives']} + {result['mined']}",
            str(result["with_phrase"]),
            *(f"{value:.1f}" for value in shown),
        )
    scored = [result["average_precision"] for result in results if result["average_precision"]]
    if scored:
        table.add_section()
        means = [np.mean([precisions[place] for precisions in scored]) for place in (-1, 0)]
        table.add_row(f"mean of {len(scored)}", "", "", "", *(f"{mean:.1f}" for mean in means))
    return table
