r"""Informative objects in scenes (Zhou et al. 2016, section 4): the objects that a scene's map shows, out of all there.

    python -m experiments.scene_objects --sample                            # a trial without a data set
    python -m experiments.scene_objects --ade ADEChallengeData2016 --scenes bathroom bedroom building_facade \
        dining_room highway kitchen living_room mountain_snowy skyscraper street \
        --model googlenet_gap --weights cam-release    # the paper's network and scenes
    python -m experiments.scene_objects --folder DIR                        # your own images with label maps
    camjax prepare scene_parse150 --data-dir DATA                           # once; 1.0 GB to download
    python -m experiments.scene_objects --scene-list sceneCategories.txt --object-names instanceInfo100_train.txt \
        --data-dir DATA                                                     # tfds' copy, with 100 of the objects

A *scene* here is a kind of place (bathroom, street), as in the data sets SUN, ADE20K and Places; the code says *place*.
camjax's own data set "scenes", digits on photographs of textures, has nothing to do with it.

**The paper** takes ten categories of SUN with at least 200 fully annotated images, 4,675 together (its supplement names
them, as above), trains a linear support vector machine for each against all others on GAP features, and computes its
maps with the SVM's weights. Figure 9 shows, for each scene, the six objects that most images have, and the six that
most frequently overlap the regions of high activation. The two lists differ, because walls and floors are
everywhere. It defines neither region nor overlap. Our definitions:

- the *region* is where the map of an image's own scene, resized to the image, is above 20 % of its maximum, the paper's
  rule for boxes (`--threshold`);
- an object *overlaps* the region in an image if at least half of the object's pixels lie in it (`--least-overlap`).
  Touching it is not enough: large objects found everywhere, such as walls, always touch it;
- an object's *share* is the number of images where it overlaps over the number of images that have it. Objects in fewer
  than 5 % of a scene's images are left out (`--least-frequency`): for an object in a single image, one is all;
- SVMs are trained on all images, features are standardized, and the penalty is chosen by cross-validation, whose
  accuracy is in the table. Maps are of the same images: they explain the SVMs, and do not test them.

**Data.** Which of SUN's images the paper used is not published. The images of SceneParse150 (ADE20K) are as fully
annotated: 22,210 of hundreds of categories, some of them out of SUN, with 150 objects. Their archive is
http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip. tfds' scene_parse150 lacks the scenes, and has
the label maps of instances, of 100 objects without wall, floor and sky: sceneCategories.txt is in the archive above,
instanceInfo100_train.txt at https://github.com/CSAILVision/placeschallenge. Without `--scenes`, the ten categories
with the most images are taken.

The paper's numbers, for two scenes only, are quoted from memory: check them before you quote them again. In dining
rooms table 0.96, chair 0.85, chandelier 0.80, plate 0.73, vase 0.69, flowers 0.63; in bathrooms sink 0.84, faucet 0.80,
countertop 0.80, toilet 0.72, bathtub 0.70, towel 0.54. The chandelier has a higher share than the window, which with
0.73 is sixth of the frequent objects: so these, too, are shares of the images that have the object.

Our numbers: none yet, the data was not available where this was written.

Cost, estimated: images pass twice, for features and for maps, at 70 images/s for Lite0 on two CPU cores: 3 minutes for
5,000; reading and counting label maps takes as long; the SVMs, of ten scenes in ten fits, a few minutes.

The same command continues where it stopped: features are kept in shards, and each stage in results.json.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

import camjax
from camjax.checks import check_threshold
from camjax.cli.options import Folder, OptionalFolder, OptionalPath, Share, arg, at_least_one
from camjax.errors import InputError
from camjax.features import batch_results
from camjax.features.svm import fit_linear_svm
from camjax.models import CamModel
from camjax.processes import is_first
from camjax.terminal import Console, progress
from experiments.common.command import start
from experiments.common.features import stored_features
from experiments.common.sample import announce
from experiments.common.stages import Stages
from experiments.common.svm import SvmOptions, load_localizer, load_svm, save_svm
from experiments.scene_objects.figure import examples_figure, objects_table
from experiments.scene_objects.folders import open_ade, open_folder, open_scene_parse150
from experiments.scene_objects.overlaps import PlaceCounts, high_region, to_json
from experiments.scene_objects.places import LabeledPlaces, check_counts
from experiments.scene_objects.sample import OBJECTS, PLACES, PlaceViews

OBJECTS_LISTED = 6
SAMPLE_VIEWS = 8


@dataclass(frozen=True, kw_only=True)
class Options(SvmOptions):
    """Informative objects in scenes: those that most often overlap the high region of the scene's map.

    Attributes:
      sample: A trial on views of a few photographs, without a data set; its results mean nothing.
      ade: The folder ADEChallengeData2016, as SceneParse150 is distributed.
      folder: A folder of images and label maps, with a sub-folder for each scene, and objects.csv.
      scene_list: The file sceneCategories.txt, for tfds' scene_parse150, which lacks the scenes.
      object_names: The file instanceInfo100_train.txt, for scene_parse150; objects have only ids if not given.
      data_dir: Where scene_parse150 is prepared; tensorflow-datasets' default if not given.
      scenes: Names of scene categories, such as bathroom; the ten with the most images if not given.
      out: Where features, results and the figure go. The same command continues where it stopped.
      threshold: The region is where the map exceeds this share of its maximum.
      least_overlap: An object overlaps the region if at least this share of its pixels lies in it.
      least_frequency: Objects in a smaller share of the scene's images are not ranked.
    """

    sample: bool = False
    ade: OptionalFolder = None
    folder: OptionalFolder = None
    scene_list: OptionalPath = None
    object_names: OptionalPath = None
    data_dir: OptionalFolder = None
    scenes: Annotated[tuple[str, ...], arg("NAME...", default=False)] = ()
    out: Folder = Path("runs/scene_objects")
    threshold: Share = 0.2
    least_overlap: Share = 0.5
    least_frequency: Share = 0.05

    def __post_init__(self):
        check_threshold(self.threshold)
        at_least_one(self, "batch_size")
        if not (0 < self.least_overlap <= 1 and 0 <= self.least_frequency <= 1):
            raise InputError(
                f"--least-overlap {self.least_overlap}, --least-frequency {self.least_frequency}: expected shares in "
                "0..1, the first above 0."
            )
        if sum(map(bool, (self.sample, self.ade, self.folder, self.scene_list))) != 1:
            raise InputError("expected one of --ade, --folder, --scene-list and --sample.")
        if (self.object_names or self.data_dir) and not self.scene_list:
            raise InputError("--object-names and --data-dir are for scene_parse150: give its --scene-list, too.")
        if self.scenes and self.sample:
            raise InputError("--scenes with --sample, which has its own: leave out one or the other.")


def open_data(options: Options) -> LabeledPlaces:
    """The images that the options name."""
    if options.sample:
        views = PlaceViews(SAMPLE_VIEWS)
        return LabeledPlaces(views, views.labels, PLACES, OBJECTS, views.label_map)
    wanted = options.scenes or 10
    if options.ade:
        return open_ade(options.ade, wanted)
    if options.folder:
        return open_folder(options.folder, wanted)
    assert options.scene_list, "__post_init__ asks for one of the four"
    return open_scene_parse150(options.data_dir, options.scene_list, options.object_names, wanted)


def run(options: Options, data: LabeledPlaces, console: Console) -> dict[str, dict]:
    """Runs the experiment on open images; see the module.

    Returns:
      Scene -> images, without_region, and frequent and informative, each a list as of `overlaps.to_json`.
    """
    stages, model = Stages(options.out), options.load_model()
    store = stored_features(model, data.source, options.out / "features", console, batch_size=options.batch_size)
    labels = data.labels[store.readable]
    check_counts(data.places, np.bincount(labels, minlength=len(data.places)))
    svm_file = options.out / "svm.npz"
    subject = {
        "dataset": data.source.info.name,
        "scenes": list(data.places),
        "images": len(store),
        "left_out": len(store.unreadable),
        **options.network(model),
        "penalties": list(options.penalties),
    }

    def fit() -> dict:
        with console.status("fitting the support vector machines"):
            svm = fit_linear_svm(store[store.readable], labels, len(data.places), penalties=options.penalties)
        save_svm(svm_file, svm)
        return {"penalty": svm.penalty, "accuracy": svm.cross_validation.get(svm.penalty)}

    fitted = stages.run("support vector machines", subject, fit, files=[svm_file])
    localizer = load_localizer(model, svm_file)
    rules = {name: getattr(options, name) for name in ("threshold", "least_overlap", "least_frequency")}

    def counting() -> dict:
        return count_objects(localizer, data, options, console)

    found = stages.run("objects", {**subject, **rules}, counting, together=True)
    console.print(objects_table(found, fitted["accuracy"], options.model, data.source.info.name))
    if is_first():
        examples_figure(localizer, *load_svm(svm_file), data, store, found).savefig(options.out / "scene_objects.png")
    console.print(f"Saved {stages.path}, and scene_objects.png beside it", soft_wrap=True)
    return found


def count_objects(localizer: CamModel, data: LabeledPlaces, options: Options, console: Console) -> dict[str, dict]:
    """Counts the objects in the region of each image's map of its own scene; returns what `run` returns."""
    cam_fn = camjax.make_cam_fn(localizer)
    counts = [PlaceCounts() for _ in data.places]
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
        place: {
            "images": count.images,
            "without_region": count.without_region,
            "frequent": to_json(count.frequent(OBJECTS_LISTED), count.images, data.object_names),
            "informative": to_json(
                count.informative(OBJECTS_LISTED, options.least_frequency), count.images, data.object_names
            ),
        }
        for place, count in zip(data.places, counts, strict=True)
    }


def main(options: Options) -> None:
    """Opens the data, and runs."""
    options.processes.join()
    console = Console(quiet=not is_first())
    if options.sample:
        announce(console, "views of the same few photographs")
    run(options, open_data(options), console)


if __name__ == "__main__":
    start("scene_objects", main, Options)
