"""What every metric of the registry promises, whatever it measures."""

import contextlib
import dataclasses
import inspect
import json
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import STRICT
from jax.tree_util import Partial

from camjax.inference import CamOutput, Localization
from camjax.metrics import FAITHFULNESS, METRICS, MaxBoxAcc, Sample, Truth
from camjax.metrics.faithfulness.scores import _filled
from camjax.metrics.localization.threshold_curve import _boxes_at_thresholds
from camjax.metrics.streaming import Need, Unit

CLASSES, IMAGES, SIZE = 7, 12, (4, 6)
BATCHES = 3  # of the same size everywhere: each other one would compile every metric again
EXACT = sorted(METRICS.keys() - FAITHFULNESS.keys())  # their sums are integers


def softmax(weights, images):
    return jax.nn.softmax(jnp.einsum("bhwc,chwk->bk", images, weights, precision="highest"))


def maps_of(images, class_ids):
    """Of changed images and any classes: smooth in the images, and different for each class."""
    images, ids = np.asarray(images, np.float32), np.asarray(class_ids)
    return jnp.asarray(np.sin(images[..., 0] / 40 + ids[:, None, None]).astype(np.float32))


def network(seed=0):
    weights = np.random.default_rng(seed).normal(size=(3, *SIZE, CLASSES)) / 500
    return Partial(softmax, jnp.asarray(weights, jnp.float32))


def random_boxes(rng, *shape):
    """Large ones, which often overlap by a half."""
    low, high = rng.integers(0, 4, (*shape, 2)) / 8, rng.integers(5, 9, (*shape, 2)) / 8
    return np.concatenate([low, high], axis=-1)


def localization(rng, logits, class_ids):
    shape = class_ids.shape
    maps = rng.normal(size=(*shape, 3, 4)).astype(np.float32)
    return Localization(logits, class_ids, maps, random_boxes(rng, *shape).astype(np.float32), rng.random(shape) < 0.9)


def sample(seed=0) -> Sample:
    """Images without padding: two of them have no true box, two have three."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(IMAGES, CLASSES)).astype(np.float32)
    ranking = np.argsort(-logits, axis=1).astype(np.int32)
    labels = np.concatenate([ranking[:6, 0], ranking[6:, 2]])  # half of them are right
    boxes = [random_boxes(rng, count) for count in (1, 2, 3, 0, 1, 1) * 2]
    truth = Truth(
        labels,
        boxes,
        boxes,
        rng.integers(100, 200, (IMAGES, 2)),
        np.ones(IMAGES, bool),
        [f"{i}.png" for i in range(IMAGES)],
        list(rng.choice(np.uint8([0, 1, 255]), (IMAGES, 30, 40))),
    )
    images = rng.integers(0, 256, (IMAGES, *SIZE, 3), dtype=np.uint8)
    top = CamOutput(*localization(rng, logits, ranking[:, :5])[:3])
    return Sample(images, top, localization(rng, logits, labels[:, None]), truth, network(seed), maps_of)


def rows(whole: Sample, *chosen: int | None) -> Sample:
    """Some images of a sample; None is a row of padding, which holds what no metric may look at."""

    def pick(array, nonsense):
        return np.stack([np.full_like(array[0], nonsense) if i is None else array[i] for i in chosen])

    def found(of):
        return type(of)(*(pick(array, value) for array, value in zip(of, (0, -1, np.nan, 9, True), strict=False)))

    def listed(values, nonsense):
        return [nonsense if i is None else values[i] for i in chosen]

    truth = whole.truth
    return Sample(
        pick(whole.images, 0),
        found(whole.top),
        found(whole.asked),
        Truth(
            pick(truth.labels, -1),
            listed(truth.boxes, np.full((1, 4), 9.0)),
            listed(truth.wsol_boxes, np.full((1, 4), 9.0)),
            pick(truth.image_sizes, 0),
            pick(truth.counted, False),
            listed(truth.filenames, ""),
            listed(truth.masks, None),
        ),
        whole.probabilities_fn,
        whole.maps_fn,
    )


def make(name, *samples):
    metric = METRICS[name].for_evaluation(CLASSES)
    for of in samples:
        metric.update_from(of)
    return metric


@pytest.fixture(scope="module")
def filled():
    """Every metric over the whole sample, in batches, computed once; not to be changed."""
    return {name: make(name, *sample().split(BATCHES)) for name in METRICS}


every_metric = pytest.mark.parametrize("name", METRICS)


def test_titles_are_all_different():
    titles = [metric.title for metric in METRICS.values()]
    assert len({*titles}) == len(titles) and all(titles)


@every_metric
def test_the_class_says_what_an_evaluation_has_to_know(name):
    metric = METRICS[name]
    assert metric.unit in get_args(Unit) and metric.needs <= set(get_args(Need))
    assert isinstance(metric.whole_images, bool)
    made = metric.for_evaluation(CLASSES)
    assert json.loads(json.dumps(made.options)) == made.options
    assert all(array.dtype in (np.int64, np.float64) for array in made.sums.values())


@every_metric
def test_all_arguments_that_change_results_are_options(name):
    # Metrics with other options are not merged.
    constructor = MaxBoxAcc if issubclass(METRICS[name], MaxBoxAcc) else METRICS[name]
    arguments = inspect.signature(constructor).parameters.keys() - {"num_threads", "chunk_size"}
    assert METRICS[name]().options.keys() == arguments


@every_metric
def test_results_are_numbers_with_a_unit_in_its_range(name, filled):
    results = filled[name].compute()
    ranges = {"percent": (0, 100), "score": (-1, 1), "correlation": (-1, 1), "index": (0, 1), "share": (0, 1)}
    ranges["ratio"] = 0, np.inf
    for result, value in results.items():
        unit = filled[name].unit_of(result)
        low, high = ranges[unit]
        assert type(value) is float and low <= value <= high
        assert (unit == "share") == ("threshold" in result)
    assert filled[name].num_images == IMAGES


@every_metric
def test_parts_in_any_order_with_padding_merged_and_restored_equal_the_whole(name, filled):
    some = [[None, 4, 1, None], [None] * 4]
    others = [[3, 0, None, 5], [2, None, 6, 7], [8, 9, 10, 11]]
    parts = [make(name, *(rows(sample(), *chosen) for chosen in batches)) for batches in (some, others)]
    state = json.loads(json.dumps(parts[1].state()))
    merged = METRICS[name].for_evaluation(CLASSES).restore(state).merge(parts[0])
    if name in EXACT:
        assert merged.state() == filled[name].state()
    assert merged.num_images == IMAGES
    assert merged.compute() == pytest.approx(filled[name].compute(), rel=1e-4, abs=1e-5)
    assert parts[1].state() == state, "merging leaves the other as it was"


@every_metric
def test_other_images_and_weights_give_other_numbers_and_compile_nothing(name, filled):
    compiled = _filled._cache_size(), _boxes_at_thresholds._cache_size()
    assert make(name, *sample(seed=1).split(BATCHES)).compute() != filled[name].compute()
    assert (_filled._cache_size(), _boxes_at_thresholds._cache_size()) == compiled


@pytest.mark.parametrize(
    "options", [pytest.param(STRICT, id="strict"), pytest.param({"jax_disable_jit": True}, marks=pytest.mark.long)]
)
@every_metric
def test_the_same_numbers_whatever_jax_is_set_to(name, options, filled):
    batches = [rows(sample(), 0, 3)] if "jax_disable_jit" in options else sample().split(BATCHES)
    expected = make(name, *batches) if "jax_disable_jit" in options else filled[name]
    with contextlib.ExitStack() as stack:
        for option, value in options.items():
            stack.callback(jax.config.update, option, getattr(jax.config, option))
            jax.config.update(option, value)
        metric = make(name, *batches)
    assert metric.compute() == pytest.approx(expected.compute(), rel=1e-4, abs=1e-5)


@every_metric
def test_nothing_seen_is_nothing_to_compute(name, filled):
    metric = METRICS[name].for_evaluation(CLASSES)
    fresh = metric.state()
    for of in (metric, filled[name].empty(), make(name, rows(sample(), *[None] * 4))):
        assert of.state() == fresh
        with pytest.raises(ValueError, match=r"no image|without a pixel"):
            of.compute()


def without(array):
    return array[:-1]


@every_metric
@pytest.mark.parametrize("change", ["mask", "maps", "truth", "values of the mask"])
def test_arrays_that_do_not_fit_are_an_error_and_nothing_is_added(name, change, filled):
    good = sample().split(BATCHES)[0]
    truth = good.truth
    if change == "mask":
        bad = dataclasses.replace(good, truth=dataclasses.replace(truth, counted=without(truth.counted)))
    elif change == "values of the mask":
        bad = dataclasses.replace(good, truth=dataclasses.replace(truth, counted=truth.counted * 2))
    elif change == "truth":
        shorter = {of: without(getattr(truth, of)) for of in ("labels", "boxes", "wsol_boxes", "masks")}
        bad = dataclasses.replace(good, truth=dataclasses.replace(truth, **shorter), images=without(good.images))
    else:
        top = good.top._replace(maps=without(good.top.maps))
        asked = good.asked._replace(maps=without(good.asked.maps), boxes=without(good.asked.boxes))
        bad = dataclasses.replace(good, top=top, asked=asked)
    metric = make(name)
    with pytest.raises(ValueError, match=r"expected|cannot|broadcast"):
        metric.update_from(bad)
    assert metric.state() == make(name).state()


@every_metric
def test_what_a_metric_needs_and_does_not_get_is_said(name):
    good = sample()
    if "masks" in METRICS[name].needs:
        good = dataclasses.replace(good, truth=dataclasses.replace(good.truth, masks=None))
    elif "scores" in METRICS[name].needs:
        good = dataclasses.replace(good, probabilities_fn=None)
    else:
        assert METRICS[name].needs == {"boxes"}
        return
    with pytest.raises(ValueError, match="of a sample without"):
        make(name, good)
    if "maps" in METRICS[name].needs:
        with pytest.raises(ValueError, match="of a sample without maps_fn"):
            make(name, dataclasses.replace(sample(), maps_fn=None))


@every_metric
def test_the_state_of_another_metric_is_refused(name, filled):
    other = filled["pxap" if name != "pxap" else "ilsvrc"]
    metric = make(name)
    with pytest.raises(ValueError, match="cannot be merged"):
        metric.merge(other)
    with pytest.raises(ValueError, match="cannot be restored"):
        metric.restore(other.state())
    assert metric.state() == make(name).state()


@every_metric
def test_split_over_devices_and_merged_in_order(name, filled):
    metric = make(name)
    for part in sample().split(BATCHES):
        own = metric.empty()
        own.update_from(part)
        metric.merge(own)
    assert metric.compute() == pytest.approx(filled[name].compute(), rel=1e-4, abs=1e-5)


def test_names_of_faithfulness_results_are_all_different(filled):
    names = [result for name in FAITHFULNESS for result in filled[name].compute()]
    assert len(names) == len({*names}) == 17


def test_options_of_the_papers():
    assert METRICS["ilsvrc"].for_evaluation(3).options["top_k"] == [1]
    assert METRICS["pointing"].for_evaluation(3).options == {"tolerance": 15}
    assert METRICS["maxboxaccv2"]().options == MaxBoxAcc(version=2).options
    for name, metric in METRICS.items():
        fine = metric.for_evaluation(CLASSES, 0.001).options
        assert metric.stepped == (fine != metric.for_evaluation(CLASSES).options)
        assert not metric.stepped or fine["thresholds"] == np.arange(0, 1, 0.001).tolist(), name
    for step in (0, 1, -0.1, np.nan):
        with pytest.raises(ValueError, match=f"threshold_step={step}: expected a share above 0 and below 1"):
            METRICS["maxboxacc"].for_evaluation(CLASSES, step)
    with pytest.raises(ValueError, match="5 classes or more, not 4"):
        METRICS["heuristic"].for_evaluation(4)


def test_maps_that_are_not_finite_are_an_error_that_names_the_files():
    good = sample()
    maps = good.top.maps.copy()
    maps[[1, 4], 0, 0, 0] = np.nan
    counted = np.arange(IMAGES) != 4
    truth = dataclasses.replace(good.truth, counted=counted)
    with pytest.raises(ValueError, match=r"Sparsity: the maps of 1 images .* \(1\.png\)"):
        make("sparsity", dataclasses.replace(good, top=good.top._replace(maps=maps), truth=truth))
