"""Boxes at many thresholds, and MaxBoxAccV2, compared with one call of OpenCV per threshold.

    python -m benchmarks.contours [--quick]

prints a table and, last, one JSON line of ratios: the time of the localization benchmark's evaluator over camjax's.
Above 1, camjax is faster. The evaluator thresholds the map, finds contours and takes bounding rectangles, for one
threshold after another. Both are measured in turns in one run, on the same score maps. Their results have to be
identical, or the benchmark fails. OpenCV's own threads are off; with two threads, each takes every other map.

The maps are 14 x 14 cells of smoothed noise, prepared as the evaluator does; a region of them has a few contours.
MaxBoxAccV2 goes from raw maps, with two true boxes each, to the hits at every threshold. On the evaluator's side NumPy
computes the overlaps of a whole map at once; the evaluator itself takes longer for them.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.timing import cpu_count, cpu_name, interleaved, ratio
from camjax.metrics import MaxBoxAcc, contour_boxes, score_map

PROMISES = {"maxboxaccv2_1000_1_thread": 3.0}

IOU_THRESHOLDS = (0.3, 0.5, 0.7)
NUM_MAPS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: ten seconds instead of a minute")
    rounds = 3 if parser.parse_args().quick else 15
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{cpu_name()}, {cpu_count()} cores, OpenCV {cv2.__version__}")
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    raw_maps = np.stack([cv2.GaussianBlur(rng.normal(size=(14, 14)), (0, 0), 1.5) for _ in range(NUM_MAPS)])
    corners = np.sort(rng.uniform(0, 1, (NUM_MAPS, 2, 2, 2)), axis=2)
    true_boxes = corners.reshape(NUM_MAPS, 2, 4)
    table = Table("what", "thresholds", "one by one", "1 thread", "2 threads", "ratios", "promised")
    figures = {}
    with console.status("measuring"), ThreadPoolExecutor(2) as pool:
        for number in (100, 1000):
            thresholds = np.arange(0, 1, 1 / number)
            tasks = {
                "boxes": _box_functions(raw_maps, thresholds, False, pool),
                "boxes_all": _box_functions(raw_maps, thresholds, True, pool),
                "maxboxaccv2": _metric_functions(raw_maps, true_boxes, thresholds),
            }
            for task, functions in tasks.items():
                _check_identical(task, functions)
                times = interleaved(functions, rounds)
                ratios = {}
                for name in ("1_thread", "2_threads"):
                    ratios[f"{task}_{number}_{name}"] = round(ratio(times["one_by_one"], times[name]), 3)
                figures |= ratios
                promised = [(value, PROMISES[key]) for key, value in ratios.items() if key in PROMISES]
                table.add_row(
                    TITLES[task],
                    str(number),
                    *(f"{1e3 * np.median(times[name]) / NUM_MAPS:.2f} ms a map" for name in functions),
                    ", ".join(f"{value:.3g}" for value in ratios.values()),
                    "".join(f">= {least:g} {_kept(value, least)}" for value, least in promised),
                )
    console.print(table)
    print(json.dumps(figures))


TITLES = {
    "boxes": "box of the largest contour",
    "boxes_all": "boxes of all contours",
    "maxboxaccv2": "MaxBoxAccV2",
}


def boxes_one_by_one(score: np.ndarray, thresholds: np.ndarray, all_contours: bool) -> list[np.ndarray]:
    """What `contour_boxes` returns, by one round of OpenCV's functions per threshold."""
    height, width = score.shape
    q = (score * 255).astype(np.uint8)
    result = []
    for threshold in thresholds:
        _, region = cv2.threshold(q, int(threshold * np.max(q)), 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(region, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        if contours and not all_contours:
            contours = [max(contours, key=cv2.contourArea)]
        boxes = []
        for contour in contours:
            x, y, w, h = cv2.boundingRect(contour)
            boxes.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
        result.append(np.array(boxes or [[0, 0, 0, 0]]))
    return result


def hits_one_by_one(raw_maps: np.ndarray, true_boxes: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """MaxBoxAccV2's hits (3, T) of maps (B, h, w) with true boxes (B, n, 4) in 0..1."""
    hits = np.zeros((len(IOU_THRESHOLDS), len(thresholds)), np.int64)
    for raw_map, shares in zip(raw_maps, true_boxes, strict=True):
        boxes = boxes_one_by_one(score_map(raw_map), thresholds, all_contours=True)
        best = _iou(np.concatenate(boxes), (shares * 224).astype(np.int64)[:, [1, 0, 3, 2]]).max(1)
        start, best_of_threshold = 0, []
        for of_threshold in boxes:
            best_of_threshold.append(best[start : start + len(of_threshold)].max())
            start += len(of_threshold)
        hits += np.array(best_of_threshold) >= np.array(IOU_THRESHOLDS)[:, None]
    return hits


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, 4) and (m, 4) pixel boxes x0, y0, x1, y1, sides counted one pixel more -> (n, m) IoU."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2]) + 1
    intersection = np.maximum(sides, 0).prod(-1)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2] + 1).prod(-1) for boxes in (a, b))
    return intersection / (area_a[:, None] + area_b - intersection)


def _box_functions(raw_maps: np.ndarray, thresholds: np.ndarray, all_contours: bool, pool: ThreadPoolExecutor) -> dict:
    scores = [score_map(raw_map) for raw_map in raw_maps]
    return {
        "one_by_one": lambda: [boxes_one_by_one(score, thresholds, all_contours) for score in scores],
        "1_thread": lambda: [contour_boxes(score, thresholds, all_contours) for score in scores],
        "2_threads": lambda: list(pool.map(lambda score: contour_boxes(score, thresholds, all_contours), scores)),
    }


def _metric_functions(raw_maps: np.ndarray, true_boxes: np.ndarray, thresholds: np.ndarray) -> dict:
    def hits(num_threads):
        metric = MaxBoxAcc(2, thresholds, num_threads=num_threads)
        metric.update(raw_maps, true_boxes)
        return metric.sums["hits"]

    return {
        "one_by_one": lambda: hits_one_by_one(raw_maps, true_boxes, thresholds),
        "1_thread": lambda: hits(1),
        "2_threads": lambda: hits(2),
    }


def _check_identical(task: str, functions: dict) -> None:
    """Raises RuntimeError unless all functions return the same arrays."""
    expected, *others = ([np.asarray(a).tolist() for a in _flat(function())] for function in functions.values())
    if any(other != expected for other in others):
        raise RuntimeError(f"{task}: camjax's results differ from those of one call per threshold.")


def _flat(result) -> list[np.ndarray]:
    return [result] if isinstance(result, np.ndarray) else [array for of_map in result for array in of_map]


def _kept(value: float, least: float) -> str:
    return "[green]kept" if value >= least else "[red]not kept"


if __name__ == "__main__":
    main()
