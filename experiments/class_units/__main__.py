r"""Class-specific units (Zhou et al. 2016, section 5): the parts that a network composes a class from.

    python -m experiments.class_units --sample                                  # a trial without a data set
    python -m experiments.class_units --dataset imagenet2012 --classes 281 espresso
    python -m experiments.class_units --dataset imagenet2012 --classes 151 --model alexnet_star_gap \
        --weights cam-release --out runs/class_units_alexnet                    # the paper's network, as released

The units k of the last convolution are ranked by their weight w_k^c for a class c. For each of the first three, the
experiment finds the images of a data set to which it responds most, by the maximum of its map over space, and segments
them. The paper shows AlexNet*-GAP, trained on ILSVRC and on Places: each unit detects a part of the class, and the
network puts the parts together as a bag of words.

**Segmentation.** A region is where the unit's map, resized to the image, exceeds a share of its maximum, within the
receptive field of the position of that maximum; the rest is darkened. The fields are exact, measured on the network
itself (`camjax.features.receptive_fields`). Zhou et al. 2015 ("Object Detectors Emerge in Deep Scene CNNs") estimate
smaller ones by occlusion. Fields of deep networks are large: the whole image in EfficientNet-Lite0, 163 to 227 of 227
pixels in AlexNet*-GAP. So the threshold does most of the work. Its default, half of the maximum, is ours; the authors'
toolkit for such figures uses 0.2 of the maximum in the best image.

**Data.** Any images: a data set of tfds, such as "imagenet2012" (`camjax prepare imagenet2012`, which says where to get
it) or "scenes", or a folder with a sub-folder for each class. Classes are those of the network, by id or name as in
`camjax explain`; networks trained on Places take ids. Nothing is trained.

Cost: one pass over the images, at 70 images/s for Lite0 on two CPU cores: 12 minutes for ILSVRC's 50,000 validation
images (estimated), in constant memory. One pass serves all classes: the same command with other --classes reuses it.

The paper has figures here and no numbers. Our results on ILSVRC: none yet, it was not available where this was written.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from camjax.checks import check_threshold, num_classes
from camjax.cli.class_choice import class_ids
from camjax.cli.options import Count, Folder, OptionalFolder, Share, arg, at_least_one
from camjax.data.annotated import open_annotated
from camjax.errors import InputError
from camjax.features import ReceptiveFields, receptive_fields
from camjax.models import CamModel
from camjax.processes import in_first, is_first
from camjax.terminal import Console, progress
from experiments.class_units.unit_images import (
    TopImages,
    class_units,
    darkened,
    top_images,
    unit_maps_fn,
    unit_region,
    units_figure,
)
from experiments.common.command import start
from experiments.common.features import report_unreadable
from experiments.common.image_lists import ImageSource
from experiments.common.options import FeatureOptions
from experiments.common.sample import PHOTOGRAPHS, Views, announce
from experiments.common.stages import Stages, load_arrays

SAMPLE_CLASSES = "tabby", "espresso"
_SAMPLE_VIEWS = 3


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """The units of the last convolution that matter most for a class, and the parts of images they respond to.

    Attributes:
      sample: A trial on views of a few photographs, without a data set; its results mean nothing.
      dataset: A data set of tfds, or a folder of images with a sub-folder for each class ("./photos").
      split: A split of the data set, such as "validation"; for a folder, a sub-folder or "all".
      data_dir: Where the data set is prepared; tensorflow-datasets' default if not given.
      classes: Classes of the network, by id or name; for the sample, tabby and espresso if not given.
      out: Where results and figures go. The same command continues where it stopped.
      units: Units of each class.
      shown: Images of each unit.
      threshold: A region is where a unit's map exceeds this share of its maximum.
    """

    sample: bool = False
    dataset: Annotated[str | None, arg("NAME|DIR", default=False)] = None
    split: Annotated[str, arg("SPLIT")] = "validation"
    data_dir: OptionalFolder = None
    classes: Annotated[tuple[str, ...], arg("CLASS...", default=False)] = ()
    out: Folder = Path("runs/class_units")
    units: Count = 3
    shown: Count = 6
    threshold: Share = 0.5

    def __post_init__(self):
        check_threshold(self.threshold)
        at_least_one(self, "units", "shown", "batch_size")
        if self.sample == (self.dataset is not None):
            raise InputError("expected --dataset with images, or --sample for a trial without: one of them.")
        if self.sample and self.data_dir:
            raise InputError("--data-dir with --sample: leave out one or the other.")
        if not self.sample and not self.classes:
            raise InputError("no --classes: expected at least one, by id or name, as in --classes 285 espresso.")


def run(options: Options, source: ImageSource, console: Console) -> dict:
    """Runs the experiment on the given images; see the module.

    Returns:
      Class id -> its name and units, as in results.json.
    """
    model = options.load_model()
    classes = num_classes(model)
    weights = getattr(model.head, "kernel", None)
    if weights is None:
        raise InputError(
            f"{options.model} has no dense layer after its last convolution, whose units are the class maps already: "
            "each class has one unit, its own, and there is nothing to rank. Take a network with a kernel, such as "
            "alexnet_star_gap or efficientnet_lite0."
        )
    asked = class_ids(options.classes or SAMPLE_CLASSES, model.class_names, classes)
    kernel = np.asarray(weights[...])
    stages, units_file = Stages(options.out), options.out / "units.npz"
    images_of_a_unit = min(options.shown, len(source))
    subject = {
        "dataset": source.info.name,
        "split": source.info.split,
        "images": len(source),
        **options.network(model),
        "images_of_a_unit": images_of_a_unit,
    }

    def responding() -> dict:
        with progress("responses of all units", console) as update:
            top = top_images(model, source, images_of_a_unit, batch_size=options.batch_size, progress=update)
        in_first(lambda: np.savez(units_file, values=top.values, indices=top.indices))
        return {"units": len(top.values), "unreadable": {str(index): why for index, why in top.unreadable.items()}}

    found = stages.run("top images", subject, responding, files=[units_file], together=True)
    report_unreadable(found["unreadable"], console)
    with console.status("receptive fields"):
        fields = receptive_fields(model)
    results = {}
    for class_id in asked:
        name = model.class_names[class_id] if model.class_names else f"class {class_id}"
        figure_file = options.out / f"class_{class_id}.png"

        def showing(class_id=class_id, name=name, figure_file=figure_file) -> dict:
            values, indices = load_arrays(units_file, "values", "indices")
            top = TopImages(values, indices, {})
            units = class_units(kernel, class_id, options.units)
            listed, rows = _units(model, source, fields, top, units, kernel[:, class_id], options.threshold)
            units_figure(rows, f"{name}: units of the largest weights, on {source.info.name}").savefig(figure_file)
            return {"class_id": class_id, "name": name, "units": listed}

        chosen = {**subject, "units": options.units, "threshold": options.threshold}
        results[class_id] = stages.run(f"class {class_id}", chosen, showing, files=[figure_file])
        weights = ", ".join(f"{unit['unit']} ({unit['weight']:+.3f})" for unit in results[class_id]["units"])
        console.print(f"{name}: units {weights}; {figure_file}", soft_wrap=True)
    console.print(f"Saved {stages.path}", soft_wrap=True)
    return results


def _units(
    model: CamModel,
    source: ImageSource,
    fields: ReceptiveFields,
    top: TopImages,
    units: np.ndarray,
    weights: np.ndarray,
    threshold: float,
) -> tuple[list[dict], list]:
    """For each unit its entry in results.json, and its row of `units_figure`."""
    unit_maps = unit_maps_fn(model)
    listed, rows = [], []
    for unit in units.tolist():
        indices = top.indices[unit]
        indices = indices[indices >= 0].tolist()
        examples = [source[index] for index in indices]
        inputs, maps = unit_maps([example["image"] for example in examples], unit)
        regions = [unit_region(unit_map, fields, threshold) for unit_map in maps]
        found = [
            {
                "index": index,
                "filename": example.get("filename"),
                "response": float(response),
                "position": region.position,
                "receptive_field": region.field,
                "share_of_image": float(region.mask.mean()),
            }
            for index, example, response, region in zip(
                indices, examples, top.values[unit][: len(indices)], regions, strict=True
            )
        ]
        listed.append({"unit": unit, "weight": float(weights[unit]), "images": found})
        segmented = [darkened(image, region.mask) for image, region in zip(inputs, regions, strict=True)]
        rows.append((f"unit {unit}\nweight {weights[unit]:.3f}", segmented))
    return listed, rows


def main(options: Options) -> None:
    """Opens the images, and runs."""
    options.processes.join()
    console = Console(quiet=not is_first())
    source: ImageSource
    if options.dataset is None:
        announce(console, "views of a few photographs")
        source = Views(tuple(PHOTOGRAPHS), _SAMPLE_VIEWS, "all")
    else:
        source = open_annotated(options.dataset, options.split, data_dir=options.data_dir)
    run(options, source, console)


if __name__ == "__main__":
    start("class_units", main, Options)
