"""The loop of an evaluation: every image counted once, whatever the batches, devices and interruptions."""

import csv
import dataclasses
import json
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

import camjax
from camjax.data.annotation import AnnotatedSource, Annotation
from camjax.data.images import resize_image
from camjax.data.sources import SourceInfo
from camjax.evaluation.figures import cases_figure
from camjax.evaluation.runner import evaluate_localization, first_images
from camjax.metrics import FAITHFULNESS, LocalizationError, PxAP
from camjax.models import CamModel, PooledHead
from tests import processes

CLASSES = 7


class Net(CamModel):
    """Its features are the colors, bright ones: little to compile, and maps that differ from image to image."""

    def __init__(self, classes=CLASSES):
        super().__init__(input_size=(16, 16), stride=1, mean=(60,) * 3, std=(60,) * 3)
        self.head = PooledHead(3, classes, rngs=nnx.Rngs(0))

    def backbone(self, x):
        return nnx.relu(x)


@dataclass
class Images(AnnotatedSource):
    """An annotated source in memory: 23 images of several sizes, some without boxes, unreadable or excluded."""

    number: int = 23
    without_boxes: tuple[int, ...] = (3, 11)
    unreadable: tuple[int, ...] = (0, 5)
    excluded: tuple[int, ...] = (8,)
    has_boxes: bool = True
    has_masks: bool = False
    info: SourceInfo = field(init=False)

    def __post_init__(self):
        names = tuple("abcdefg")
        self.info = SourceInfo("images", "test", names, self.number, ("image", "label", "filename"))

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        if index in self.unreadable:
            raise ValueError(f"example {index} is damaged")
        rng = np.random.default_rng(index)
        shape = (40 + 7 * (index % 4), 60 - 5 * (index % 3), 3)
        image = rng.integers(0, 80, shape, dtype=np.uint8)
        y0, x0, y1, x1 = (
            self.annotation(index).boxes.reshape(-1, 4)[:1]
            if index not in self.without_boxes
            else np.array([[0.1, 0.1, 0.4, 0.4]])
        )[0] * np.tile(shape[:2], 2)
        image[int(y0) : int(y1), int(x0) : int(x1)] = rng.integers(120, 255, 3)
        return {"image": image, "label": self.annotation(index).label, "filename": f"{index}.png"}

    def annotation(self, index):
        rng = np.random.default_rng(1000 + index)
        low, extent = rng.uniform(0, 0.5, 2), rng.uniform(0.3, 0.5, 2)
        boxes = np.concatenate([low, low + extent])[None].astype(np.float32)
        if index % 5 == 0:
            boxes = np.concatenate([boxes, np.array([[0.5, 0.5, 1, 1]], np.float32)])
        if index in self.without_boxes:
            boxes = boxes[:0]
        return Annotation(f"{index}.png", index % CLASSES, boxes, "blacklisted" if index in self.excluded else "")

    def mask(self, index, size=None):
        return np.random.default_rng(index).choice(np.uint8([0, 1, 255]), size)


COUNTS = {"scored": 18, "without boxes": 2, "unreadable": 2, "blacklisted": 1}


@pytest.fixture(scope="module")
def model():
    return Net()


def numbers(evaluation):
    return {
        method: {name: metric.compute() for name, metric in of.items()} for method, of in evaluation.metrics.items()
    }


def test_every_image_is_counted_once_and_the_errors_are_those_of_a_plain_loop(model):
    source = Images()
    evaluation = evaluate_localization(model, source, batch_size=4)
    assert evaluation.counts == COUNTS and evaluation.num_images == 23
    # One image at a time, by the public functions alone.
    localize = camjax.make_localize_fn(model, top_k=5)
    metric = LocalizationError()
    for i in range(len(source)):
        annotation = source.annotation(i)
        if i in source.unreadable or annotation.excluded:
            continue
        image = camjax.data.images.resize_image(source[i]["image"], model.input_size)[None]
        top, known = localize(image), localize(image, np.array([annotation.label]))
        metric.update(
            *map(np.asarray, (top.class_ids, top.boxes)),
            np.array([annotation.label]),
            [annotation.boxes],
            valid=np.asarray(top.valid),
            label_boxes=np.asarray(known.boxes[:, 0]),
            label_valid=np.asarray(known.valid[:, 0]),
        )
    assert numbers(evaluation)["cam"]["ilsvrc"] == metric.compute()


def test_masks_are_those_of_the_images(model):
    source = Images(has_masks=True)
    evaluation = evaluate_localization(model, source, metrics=("pxap",), batch_size=4)
    counted = [i for i in range(len(source)) if i not in (*source.unreadable, *source.excluded)]
    images = np.stack([camjax.data.images.resize_image(source[i]["image"], model.input_size) for i in counted])
    maps = camjax.cam_fn(model, images, np.array([source.annotation(i).label for i in counted])).maps[:, 0]
    metric = PxAP()
    metric.update(maps, [source.mask(i, (224, 224)) for i in counted])
    assert numbers(evaluation)["cam"]["pxap"] == pytest.approx(metric.compute(), rel=1e-6)


FAITHFUL = ("confidence", "sparsity", "insertion")


@pytest.fixture(scope="module")
def faithful(model):
    return numbers(evaluate_localization(model, Images(), batch_size=8, metrics=FAITHFUL, methods=("cam", "gradcam")))


def test_faithfulness_is_that_of_the_maps_of_the_predicted_classes(model, faithful):
    source = Images(has_boxes=False)
    counted = [i for i in range(len(source)) if i not in (*source.unreadable, *source.excluded)]
    images = np.stack([camjax.data.images.resize_image(source[i]["image"], model.input_size) for i in counted])
    out = camjax.cam_fn(model, images)
    probabilities_fn = Partial(lambda model, images: jax.nn.softmax(model(images)), model)
    for name in FAITHFUL:
        metric = FAITHFULNESS[name]()
        metric.update(probabilities_fn, images, out.maps[:, 0], out.class_ids[:, 0])
        assert faithful["cam"][name] == pytest.approx(metric.compute(), rel=1e-3)
    assert faithful["gradcam"]["sparsity"] != faithful["cam"]["sparsity"]
    # It asks for no boxes.
    without = evaluate_localization(model, source, batch_size=8, metrics=("sparsity",), limit=20)
    assert without.counts["scored"] == 15 and numbers(without)["cam"]["sparsity"]["sparsity"] > 0


def test_faithfulness_can_be_resumed(model, tmp_path, faithful, monkeypatch):
    monkeypatch.setattr("camjax.evaluation.runner.SAVE_SECONDS", 0)
    options = {"metrics": FAITHFUL, "batch_size": 8, "methods": ("cam", "gradcam"), "run_dir": tmp_path}

    def interrupt(done, total):
        raise Interrupt

    with pytest.raises(Interrupt):
        evaluate_localization(model, Images(), progress=interrupt, **options)
    assert numbers(evaluate_localization(model, Images(), resume=True, **options)) == faithful


def test_maps_that_are_not_a_number_are_an_error_that_names_the_images():
    model = Net()
    model.head.kernel[...] = model.head.kernel[...].at[0, 3].set(jnp.nan)
    with pytest.raises(ValueError, match=r"Sparsity: the maps of .* NaN or infinity \(1\.png"):
        evaluate_localization(model, Images(), batch_size=8, metrics=("sparsity",))


METRICS = ("ilsvrc", "maxboxaccv2", "thresholds", "heuristic")


@pytest.fixture(scope="module")
def in_fours(model):
    """All numbers, from batches of 4."""
    return numbers(evaluate_localization(model, Images(), metrics=METRICS, batch_size=4))


@pytest.mark.parametrize("batch_size", [64, pytest.param(1, marks=pytest.mark.long)])
def test_the_numbers_do_not_depend_on_the_batch_size(model, in_fours, batch_size):
    found = evaluate_localization(model, Images(), metrics=METRICS, batch_size=batch_size)
    assert numbers(found) == in_fours and found.counts == COUNTS


@dataclass
class OtherOrder(Images):
    """The same images; their classes have the same names in another order, and the last class is missing."""

    def __post_init__(self):
        super().__post_init__()
        self.info = dataclasses.replace(self.info, class_names=tuple("FEDCBA"))

    def annotation(self, index):
        annotation = super().annotation(index)
        return dataclasses.replace(annotation, label=5 - annotation.label % 6)


@dataclass
class SixClasses(Images):
    def annotation(self, index):
        annotation = super().annotation(index)
        return dataclasses.replace(annotation, label=annotation.label % 6)


def test_classes_are_paired_by_name():
    model = Net()
    model.class_names = tuple("abcdefg")
    by_name = evaluate_localization(model, OtherOrder(), batch_size=8)
    assert numbers(by_name) == numbers(evaluate_localization(model, SixClasses(), batch_size=8))
    best, worst = by_name.cases.chosen()
    titles = [axes.get_title() for axes in cases_figure(OtherOrder(), by_name.cases).axes]
    for title, case in zip(titles, best + worst, strict=True):
        assert title.startswith(f"{'abcdef'[case.index % CLASSES % 6]}: IoU")
        assert case.prediction == case.label or title.endswith(f"taken for {model.class_names[case.prediction]}")
    model.class_names = ("a", "b", "c", "d", "e", "x", "y")
    with pytest.raises(ValueError, match="classes that the model does not have: 'F'"):
        evaluate_localization(model, OtherOrder(), batch_size=8)


@dataclass
class Listed(Images):
    """The same images with the sizes that a list says: every second is a copy of another scale, the sixth is wrong."""

    def annotation(self, index):
        shape = (40 + 7 * (index % 4), 60 - 5 * (index % 3))
        listed = (shape[1], shape[0]) if index == 6 else (shape[0] * 3, shape[1] * 3) if index % 2 else shape
        return dataclasses.replace(super().annotation(index), size=listed)


def test_images_of_another_size_than_listed_are_left_out_and_said(model):
    expected = evaluate_localization(model, Images(excluded=(6, 8)), batch_size=8)
    with pytest.warns(UserWarning, match=r"6\.png has 60 x 54 pixels, and its list or XML file says 54 x 60"):
        found = evaluate_localization(model, Listed(), batch_size=8)
    assert numbers(found) == numbers(expected)
    assert found.counts == COUNTS | {"scored": COUNTS["scored"] - 1, "of another size than listed": 1}


class Interrupt(Exception):
    pass


def same_cases(found, expected):
    """The same images, numbers and maps."""
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], array)


METHODS = {"metrics": ("ilsvrc", "maxboxacc", "pointing"), "batch_size": 4, "methods": ("gradcam", "cam")}


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """An evaluation, and its table of images."""
    directory = tmp_path_factory.mktemp("whole")
    evaluation = evaluate_localization(model, Images(), run_dir=directory, **METHODS)
    return evaluation, (directory / "images.csv").read_text()


@pytest.mark.parametrize("after", [4, 12])
def test_resumed_equals_uninterrupted(model, whole, tmp_path, monkeypatch, after):
    monkeypatch.setattr("camjax.evaluation.runner.SAVE_SECONDS", 0 if after == 4 else 1e9)

    def interrupt(done, total):
        if done == after:
            raise Interrupt

    with pytest.raises(Interrupt):
        evaluate_localization(model, Images(), run_dir=tmp_path, progress=interrupt, **METHODS)
    resumed = evaluate_localization(model, Images(), run_dir=tmp_path, resume=True, **METHODS)
    uninterrupted, images = whole
    assert numbers(resumed) == numbers(uninterrupted) and resumed.counts == uninterrupted.counts == COUNTS
    assert (tmp_path / "images.csv").read_text() == images
    same_cases(resumed.cases, uninterrupted.cases)


def test_the_best_and_worst_cases_are_those_of_the_table(model, whole):
    evaluation, images = whole
    rows = list(csv.DictReader(images.splitlines()))
    assert [int(row["index"]) for row in rows] == list(range(23))
    assert [row["status"] for row in rows].count("unreadable") == 2
    # Half of the 18 that are scored are not kept: six are the best, and six the worst.
    best, worst = evaluation.cases.chosen()
    scored = sorted((-float(row["gradcam_iou"]), int(row["index"])) for row in rows if row["status"] == "scored")
    assert [case.index for case in (*best, *worst)] == [index for _, index in scored[:6] + scored[-6:]]
    by_index = {int(row["index"]): row for row in rows}
    localize = camjax.make_localize_fn(model, "gradcam")
    for case in (*best, *worst):
        row = by_index[case.index]
        assert (case.iou, case.prediction) == (float(row["gradcam_iou"]), int(row["prediction"]))
        image = camjax.data.images.resize_image(Images()[case.index]["image"], model.input_size)[None]
        found = localize(image, np.array([int(row["label"])]))
        np.testing.assert_allclose(case.map, found.maps[0, 0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(case.box, found.boxes[0, 0], atol=1e-6)
        assert case.view.tolist() == [0, 0, 1, 1]


def test_a_finished_evaluation_is_neither_overwritten_nor_done_twice(model, tmp_path):
    options = {"batch_size": 8, "limit": 8, "run_dir": tmp_path}
    first = evaluate_localization(model, Images(), **options)
    with pytest.raises(FileExistsError, match="--resume"):
        evaluate_localization(model, Images(), **options)
    calls = []
    again = evaluate_localization(model, Images(), **options, resume=True, progress=lambda *a: calls.append(a))
    assert numbers(again) == numbers(first) and not calls
    same_cases(again.cases, first.cases)
    with pytest.raises(ValueError, match=r"threshold was 0\.2, is 0\.3"):
        evaluate_localization(model, Images(), **options, resume=True, threshold=0.3)


def test_center_crop_gives_boxes_of_the_whole_image(model):
    """A box that the network draws around all it sees is the crop itself."""
    source = Images(unreadable=(), excluded=(), without_boxes=())
    evaluation = evaluate_localization(model, source, batch_size=4, crop="center", methods=("center",))
    view = camjax.data.images.center_view((40, 60), model.input_size)
    assert view == pytest.approx((0, 1 / 6, 1, 5 / 6))
    assert evaluation.counts["scored"] == 23
    halved = nnx.clone(model)
    halved.set_input_rule(**model.input_rule, crop_share=0.5)
    found = evaluate_localization(halved, source, batch_size=4, crop="center", methods=("center",), limit=4)
    assert found.cases.chosen()[0][0].view == pytest.approx((1 / 4, 1 / 3, 3 / 4, 2 / 3))
    with pytest.raises(ValueError, match="whole images"):
        evaluate_localization(model, source, metrics=("maxboxacc",), batch_size=4, crop="center")


def test_maps_are_saved_as_wsolevaluation_names_them(model, tmp_path):
    evaluate_localization(model, Images(), batch_size=8, run_dir=tmp_path, save_maps=True)
    files = sorted((tmp_path / "scoremaps").iterdir())
    assert len(files) == 20 and {"1.png.npy", "22.png.npy"} <= {file.name for file in files}
    map = np.load(files[0])
    assert map.shape == (224, 224) and map.min() == 0 and map.max() == 1
    methods, both = ("backprop", "cam"), tmp_path / "both"
    evaluate_localization(model, Images(), methods=methods, batch_size=8, run_dir=both, save_maps=True)
    assert sorted(folder.name for folder in (both / "scoremaps").iterdir()) == [*methods]
    for file in files:
        np.testing.assert_allclose(np.load(both / "scoremaps" / "cam" / file.name), np.load(file), atol=1e-6)
    assert len([*(both / "scoremaps" / "backprop").iterdir()]) == len(files)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("pxap",)}, "masks"),
        ({"metrics": ("accuracy",)}, "not known"),
        ({"methods": ("magic",)}, "magic"),
        ({"methods": ("cam", "cam")}, "each once"),
        ({"limit": 0}, "limit=0"),
        ({"save_maps": True}, "run_dir"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"source": "photos"}, r"source='photos': expected annotated images, as camjax\.data\.open_annotated"),
    ],
)
def test_what_does_not_fit_together_is_said_first(model, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_localization(model, **({"source": Images(), "batch_size": 4} | options))


def test_public_names_of_the_package():
    for name in camjax.evaluation.__all__:
        assert getattr(camjax.evaluation, name).__module__.startswith("camjax.evaluation.")


def test_a_model_of_other_classes_is_an_error():
    with pytest.raises(ValueError, match="7 classes, and the model 3"):
        evaluate_localization(Net(3), Images(), batch_size=4)


def on_devices(options: dict) -> None:
    processes.join(options)
    evaluation = evaluate_localization(
        Net(), Images(), batch_size=8, metrics=("ilsvrc", "maxboxaccv2", "confidence"), num_threads=1
    )
    options["out"].write_text(json.dumps([jax.device_count(), evaluation.counts, numbers(evaluation)]))


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.long)])
def test_the_numbers_do_not_depend_on_the_number_of_devices(in_fours, faithful, tmp_path, devices):
    out, log = tmp_path / "found.json", tmp_path / "log.txt"
    process = processes.start(on_devices, {"devices": devices, "preemption": False, "out": out}, log)
    assert processes.end([process], log) == [0], log.read_text()
    found = json.loads(out.read_text())
    assert found[2]["cam"].pop("confidence") == pytest.approx(faithful["cam"]["confidence"], rel=1e-5)
    assert found == [devices, COUNTS, {"cam": {name: in_fours["cam"][name] for name in ("ilsvrc", "maxboxaccv2")}}]
    assert jax.device_count() == 1


def test_the_first_images_that_can_be_read():
    source = Images()  # of which 0 and 5 cannot
    found = first_images(source, 5, (16, 16))
    assert found.shape == (5, 16, 16, 3) and found.dtype == np.uint8
    for image, index in zip(found, (1, 2, 3, 4, 6), strict=True):
        np.testing.assert_array_equal(image, resize_image(source[index]["image"], (16, 16)))
    assert first_images(Images(number=3), 5, (16, 16)).shape == (2, 16, 16, 3)
