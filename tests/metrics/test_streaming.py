"""The sums behind every metric: merged, stored, and gathered over real processes."""

import json
from pathlib import Path

import numpy as np
import pytest

from camjax.metrics.streaming import StreamingMetric, merge_across_processes, rows_of
from camjax.processes import gather, gather_arrays, in_first
from tests.processes import end, join, start, together

# Beyond float32 and float64 as integers, beyond float32 as floats.
COUNTS = [2**53 + 1, -(2**40) - 3, 0]
WEIGHTS = [[0.1, 1 / 3], [1e-310, 2.0**80 + 2.0**30]]


def tell(options):
    """What each of two processes finds, written to a file."""
    join(options)
    rank = options["joined"][-1]
    metric = Totals()
    metric.update(rank)
    assert merge_across_processes(metric) is metric
    counts = {"scored": 2**40 + rank, "a reason of the list" * 500 * rank: 1}
    decided = in_first(lambda: [rank, 2**60, 0.1])
    arrays = gather_arrays({"rank": np.int32([rank]), "even": np.array(rank % 2 == 0)})
    found = [metric.state(), gather(counts), decided, {name: of.tolist() for name, of in arrays.items()}]
    Path(options["out"], str(rank)).write_text(json.dumps(found))


class Totals(StreamingMetric):
    def __init__(self, unit=1):
        sums = {"counts": np.zeros(3, np.int64), "weights": np.zeros((2, 2)), "images": np.zeros((), np.int64)}
        super().__init__({"unit": unit}, sums)

    def update(self, number):
        self.sums["counts"] = self.sums["counts"] + np.array(COUNTS) + number
        self.sums["weights"] = self.sums["weights"] + np.array(WEIGHTS) * (number + 1)
        self.sums["images"] = self.sums["images"] + 2**33 + number

    def compute(self):
        return {"images": float(self.sums["images"])}


class Others(Totals):
    pass


def total(*numbers, unit=1):
    metric = Totals(unit)
    for number in numbers:
        metric.update(number)
    return metric


def test_merging_adds_and_leaves_the_other_as_it_was():
    one, two = total(0), total(1)
    before = two.state()
    assert one.merge(two) is one
    assert one.state() == total(0, 1).state()
    assert two.state() == before
    one.update(3)
    assert two.state() == before


@pytest.mark.parametrize("other", [Others(), Totals(unit=2)])
def test_other_metrics_cannot_be_merged(other):
    metric = total(0)
    before = metric.state()
    with pytest.raises(ValueError, match=r"cannot be merged into Totals\(unit=1\)"):
        metric.merge(other)
    assert metric.state() == before


def test_a_state_comes_back_from_json_bit_for_bit():
    metric = total(0, 1)
    metric.sums["weights"][0] = [-0.0, np.inf]
    restored = Totals().restore(json.loads(json.dumps(metric.state())))
    for name, value in metric.sums.items():
        assert restored.sums[name].dtype == value.dtype
        assert restored.sums[name].shape == value.shape
        assert restored.sums[name].tobytes() == value.tobytes()
    # And takes part in what comes next as the metric itself would.
    restored.update(5)
    metric.update(5)
    assert restored.state() == metric.state()


def test_a_merged_and_an_updated_metric_can_be_stored_too():
    metric = total(0).merge(total(1))
    assert Totals().restore(json.loads(json.dumps(metric.state()))).state() == total(0, 1).state()


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "Others"},
        {"options": {"unit": 2}},
        {"sums": {"counts": COUNTS}},
        {"sums": {"counts": COUNTS, "weights": [1.0, 2.0], "images": 1}},
        {"sums": {"counts": COUNTS, "weights": WEIGHTS, "images": [1]}},
    ],
)
def test_what_is_not_the_state_of_this_metric_changes_nothing(change):
    metric = total(4)
    before = metric.state()
    with pytest.raises(ValueError, match="expected"):
        metric.restore(total(1).state() | change)
    assert metric.state() == before


def test_one_process_keeps_its_own():
    metric = total(1)
    assert merge_across_processes(metric) is metric
    assert metric.state() == total(1).state() and gather({"scored": 1}) == [{"scored": 1}]


def test_two_processes_of_two_devices_have_the_sums_of_both(tmp_path):
    log = tmp_path / "log.txt"
    started = [start(tell, options, log) for options in together(2, out=str(tmp_path), devices=2)]
    assert end(started, log) == [0, 0], log.read_text()
    for rank in range(2):
        state, counts, decided, arrays = json.loads((tmp_path / str(rank)).read_text())
        assert state == total(0).merge(total(1)).state()
        # Of any length, in the order of the processes.
        assert counts == [{"scored": 2**40, "": 1}, {"scored": 2**40 + 1, "a reason of the list" * 500: 1}]
        assert decided == [0, 2**60, 0.1]
        assert arrays == {"rank": [[0], [1]], "even": [True, False]}


def test_rows_that_are_no_padding():
    assert rows_of(None, 3).tolist() == [0, 1, 2]
    assert rows_of(np.array([True, False, True]), 3).tolist() == [0, 2]
    assert rows_of([False, False], 2).tolist() == []


@pytest.mark.parametrize("mask", [[True], [True, True, True], [[True], [True]], [0.5, 1.0], [np.nan, 1.0], [2, 3]])
def test_a_mask_that_is_none(mask):
    with pytest.raises(ValueError, match=r"expected \(2,\) bool"):
        rows_of(mask, 2)
