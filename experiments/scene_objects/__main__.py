r"""Informative objects in scenes (Zhou et al. 2016, section 4): what a scene's map rests on, among all that is there.

    python -m experiments.scene_objects --sample                            # a trial without a data set
    python -m experiments.scene_objects --ade ADEChallengeData2016 --scenes bathroom bedroom building_facade \
        dining_room highway kitchen living_room mountain_snowy skyscraper street \
        --model googlenet_gap --weights imagenet_googlenetCAM.caffemodel    # the paper's network and scenes
    python -m experiments.scene_objects --folder DIR                        # images with label maps, of your own
    camjax prepare scene_parse150 --data-dir DATA                           # once; 1.0 GB to download
    python -m experiments.scene_objects --scene-list sceneCategories.txt --object-names instanceInfo100_train.txt \
        --data-dir DATA                                                     # tfds' copy, with 100 of the objects

**The paper** takes ten categories of SUN with at least 200 fully annotated images, 4,675 together (its supplement names
them, as above), trains a linear support vector machine for each against all others on GAP features, and computes its
maps with the machine's weights. Figure 9 has, of a scene, the six objects that most images have, and the six that most
frequently overlap the regions of high activation: other ones, for walls and floors are everywhere. It defines neither
region nor overlap. So these are ours:

- the *region* is where the map of an image's own scene, resized to the image, is above 20 % of its maximum, the paper's
  rule for boxes (`--threshold`);
- an object *overlaps* it in an image where at least half of the object's pixels lie in it (`--least-overlap`). Touching
  it would not do: large things that lie about everywhere always touch;
- an object's *share* is the number of images where it overlaps over the number of images that have it. Objects in fewer
  than 5 % of a scene's images are left out (`--least-frequency`): of one in a single image, one is all;
- machines are trained on all images, features are standardized, and the penalty is chosen by cross-validation, whose
  accuracy is in the table. Maps are of the same images: they explain the machine, and do not test it.

**Data.** Which of SUN's images were the paper's is not published. The images of SceneParse150 (ADE20K) are as fully
annotated: 22,210 of hundreds of categories, some of them out of SUN, with 150 objects. Their archive is
http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip. tfds' scene_parse150 lacks the scenes, and has
the label maps of instances, of 100 objects without wall, floor and sky: sceneCategories.txt is in the archive above,
instanceInfo100_train.txt at https://github.com/CSAILVision/placeschallenge. Without `--scenes`, the ten categories
with the most images are taken.

The paper's numbers, two scenes alone, are as remembered, to be checked before they are quoted again: in dining rooms
table 0.96, chair 0.85, chandelier 0.80, plate 0.73, vase 0.69, flowers 0.63; in bathrooms sink 0.84, faucet 0.80,
countertop 0.80, toilet 0.72, bathtub 0.70, towel 0.54. That chandelier outnumbers the window, which with 0.73 is sixth
of the frequent objects, tells that these, too, are shares of the images that have the object.

Ours: not run, for the data was not at hand where this was written.

Cost, estimated: images pass twice, for features and for maps, at 70 images/s for Lite0 on two CPU cores: 3 minutes for
5,000; label maps take as long to be read and counted; the machines, of ten scenes in ten fits, a few minutes.

The same command goes on where it stopped: features are kept in shards, and each stage in results.json.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

import camjax
from camjax.cli.errors import run_command
from camjax.features.pooled import batch_results, with_linear_classifier
from camjax.features.store import extract_features
from camjax.features.svm import PENALTIES, fit_linear_svm
from camjax.inference import check_threshold
from camjax.models import CamModel
from camjax.weights.fingerprint import weights_sha256
from experiments.common.progress import progress
from experiments.common.sample import NAME as SAMPLE
from experiments.common.stages import Stages
from experiments.scene_objects.figure import examples_figure, objects_table
from experiments.scene_objects.folders import open_ade, open_folder, open_scene_parse150
from experiments.scene_objects.overlaps import SceneCounts, high_region, in_words
from experiments.scene_objects.places import LabeledScenes, check_counts
from experiments.scene_objects.sample import OBJECTS, SCENES, SceneViews

PROGRAM = "python -m experiments.scene_objects"
OBJECTS_LISTED = 6
SAMPLE_VIEWS = 8

_Path = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Informative objects in scenes: those that most often overlap where the scene's map is high.

    Attributes:
      sample: A trial on views of a few photographs, without a data set; its numbers mean nothing.
      ade: The folder ADEChallengeData2016, as SceneParse150 is distributed.
      folder: A folder of images and label maps, with a sub-folder for each scene, and objects.csv.
      scene_list: The file sceneCategories.txt, for tfds' scene_parse150, which lacks the scenes.
      object_names: The file instanceInfo100_train.txt, for scene_parse150; objects have ids alone if not given.
      data_dir: Where tfds keeps scene_parse150; tensorflow-datasets' own place if not given.
      scenes: Names of the scenes; the ten with the most images if not given.
      model: A network of `camjax models`, or the directory of a training run.
      weights: A file of its weights, or an address (hf://, https://). EfficientNet-Lite needs none.
      out: Where features, results and the figure go; the same command goes on where it stopped.
      threshold: The region is where the map exceeds this share of its maximum.
      least_overlap: An object overlaps the region where this share of its pixels, or more, lies in it.
      least_frequency: Objects in a smaller share of the scene's images are not ranked.
      penalties: Candidates for the support vector machines' penalty, scikit-learn's C.
      batch_size: Images at a time.
    """

    sample: bool = False
    ade: _Path = None
    folder: _Path = None
    scene_list: _Path = None
    object_names: _Path = None
    data_dir: _Path = None
    scenes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...", help_behavior_hint="")] = ()
    model: Annotated[str, tyro.conf.arg(metavar="NAME|RUN")] = "efficientnet_lite0"
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/scene_objects")
    threshold: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.2
    least_overlap: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.5
    least_frequency: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.05
    penalties: Annotated[tuple[float, ...], tyro.conf.arg(metavar="C...")] = PENALTIES
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 32

    def __post_init__(self):
        check_threshold(self.threshold)
        if self.batch_size < 1:
            raise ValueError(f"--batch-size {self.batch_size}: expected at least 1.")
        if not (0 < self.least_overlap <= 1 and 0 <= self.least_frequency <= 1):
            raise ValueError(
                f"--least-overlap {self.least_overlap}, --least-frequency {self.least_frequency}: expected shares in "
                "0..1, the first above 0."
            )
        if sum(map(bool, (self.sample, self.ade, self.folder, self.scene_list))) != 1:
            raise ValueError("expected one of --ade, --folder, --scene-list and --sample.")
        if (self.object_names or self.data_dir) and not self.scene_list:
            raise ValueError("--object-names and --data-dir are for scene_parse150: give its --scene-list, too.")
        if self.scenes and self.sample:
            raise ValueError("--scenes with --sample, which has its own: leave out one or the other.")


def open_data(options: Options) -> LabeledScenes:
    """The images that the options name."""
    if options.sample:
        views = SceneViews(SAMPLE_VIEWS)
        return LabeledScenes(views, views.labels, SCENES, OBJECTS, views.label_map)
    wanted = options.scenes or 10
    if options.ade:
        return open_ade(options.ade, wanted)
    if options.folder:
        return open_folder(options.folder, wanted)
    return open_scene_parse150(options.data_dir, options.scene_list, options.object_names, wanted)


def run(options: Options, data: LabeledScenes, console: Console) -> dict[str, dict]:
    """The experiment on images that are open; see the module.

    Returns:
      Scene -> images, without_region, and frequent and informative, each a list of `scene_overlaps.in_words`.
    """
    stages, model = Stages(options.out), camjax.load_model(options.model, options.weights)
    with progress("features", console) as update:
        directory = options.out / "features"
        store = extract_features(model, data.source, directory, batch_size=options.batch_size, progress=update)
    if store.unreadable:
        some = "; ".join(list(store.unreadable.values())[:3])
        console.print(f"{len(store.unreadable)} images can't be read and are left out: {some}")
    labels = data.labels[store.readable]
    check_counts(data.scenes, np.bincount(labels, minlength=len(data.scenes)))
    svm_file = options.out / "svm.npz"
    subject = {
        "dataset": data.source.info.name,
        "scenes": list(data.scenes),
        "images": len(store),
        "left_out": len(store.unreadable),
        "model": options.model,
        "weights_sha256": weights_sha256(model),
        "penalties": list(options.penalties),
    }

    def fit() -> dict:
        with console.status("fitting the support vector machines"):
            svm = fit_linear_svm(store[store.readable], labels, len(data.scenes), penalties=options.penalties)
        np.savez(svm_file, kernel=svm.kernel, bias=svm.bias)
        return {"penalty": svm.penalty, "accuracy": svm.cross_validation.get(svm.penalty)}

    fitted = stages.run("support vector machines", subject, fit, files=[svm_file])
    svm = np.load(svm_file)
    localizer = with_linear_classifier(model, svm["kernel"], svm["bias"])
    rules = {name: getattr(options, name) for name in ("threshold", "least_overlap", "least_frequency")}
    found = stages.run("objects", {**subject, **rules}, lambda: count_objects(localizer, data, options, console))
    console.print(objects_table(found, fitted["accuracy"], options.model, data.source.info.name))
    examples_figure(localizer, data, store, found).savefig(options.out / "scene_objects.png")
    console.print(f"Saved {stages.path}, and scene_objects.png beside it", soft_wrap=True)
    return found


def count_objects(localizer: CamModel, data: LabeledScenes, options: Options, console: Console) -> dict[str, dict]:
    """What `run` returns: each image's map of its own scene, its region, and the objects in it."""
    cam_fn = camjax.make_cam_fn(localizer)
    counts = [SceneCounts() for _ in data.scenes]
    with progress("maps", console) as update:
        results = batch_results(
            lambda images, indices: cam_fn(images, data.labels[indices]).maps[:, 0],
            data.source,
            localizer.input_size,
            batch_size=options.batch_size,
            unreadable="mark",
            progress=update,
        )
        for batch, maps in results:
            for index, map in zip(batch["index"][batch["mask"]], maps, strict=True):
                label_map = data.label_map(index)
                region = high_region(map, label_map.shape, options.threshold)
                counts[data.labels[index]].add(region, label_map, options.least_overlap)
    return {
        scene: {
            "images": count.images,
            "without_region": count.without_region,
            "frequent": in_words(count.frequent(OBJECTS_LISTED), count.images, data.object_names),
            "informative": in_words(
                count.informative(OBJECTS_LISTED, options.least_frequency), count.images, data.object_names
            ),
        }
        for scene, count in zip(data.scenes, counts, strict=True)
    }


def main(options: Options) -> None:
    """Opens the data, and runs."""
    console = Console(highlight=False)
    if options.sample:
        console.print(f"This is a {SAMPLE}: views of the same few photographs. Its numbers mean nothing.\n")
    run(options, open_data(options), console)


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, lambda: main(tyro.cli(Options, prog=PROGRAM))))
