"""`camjax train`: fine-tunes a network on one's own pictures, and says how good it became."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from camjax.addresses import as_path, is_address, local_path
from camjax.cli.network_choice import network_choice
from camjax.cli.options import (
    Flag,
    Folder,
    NetworkOrRun,
    OptionalCount,
    OptionalFolder,
    Share,
    Weights,
    arg,
    at_least_one,
)
from camjax.cli.training_options import TrainingOptions
from camjax.errors import InputError, require_extra

if TYPE_CHECKING:
    from camjax.data.own_pictures import OwnPictures
    from camjax.models import CamModel
    from camjax.training import Recipe

BATCH_SIZE = 32
RATE_FROM_SCRATCH = 0.1  # for 256 images a step (Goyal et al. 2017)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What `camjax train` starts from, and where it goes.

    Attributes:
      out: Where the run goes, a folder or gs://, s3://. The same command continues a run that was interrupted.
      model: A network of `camjax models`, a run, or MODULE:NAME.
      weights: A file (.pth, .safetensors, ...), an address (hf://, https://), a short name, or "random".
      wsol: A training method for localization: has, cutmix, adl, acol, spg, tscam; options as "acol threshold=0.6".
      trust: Import the module of a run whose network is MODULE:NAME; importing runs its code.
      image_size: Side in pixels of the squares that pictures are resized to; the network's own if not given.
      validation: Share of each class's pictures to measure accuracy with, where DATA has no split of its own.
      data_dir: Where DATA is prepared, if it is the name of a data set of tensorflow-datasets.
    """

    out: Folder
    model: NetworkOrRun = None
    weights: Weights = None
    wsol: Annotated[tuple[str, ...], arg("METHOD [OPTION=NUMBER ...]", default=False)] = ()
    trust: Flag = False
    image_size: OptionalCount = None
    validation: Share = 0.2
    data_dir: OptionalFolder = None

    def __post_init__(self):
        as_path(self.out)
        if self.data_dir is not None:
            local_path(self.data_dir, "--data-dir")
        at_least_one(self, "image_size")
        if not 0 < self.validation < 1:
            raise InputError(f"--validation {self.validation}: expected a share of the pictures, above 0 and below 1.")

    @property
    def random(self) -> bool:
        """Whether training starts from random weights."""
        return self.weights == "random"


def train(
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA", help_behavior_hint="(required)")],
    /,
    options: Annotated[TrainOptions, tyro.conf.arg(name="")],
    training: Annotated[TrainingOptions, tyro.conf.arg(name="")],
) -> None:
    """Fine-tune a network on your own pictures, from class labels alone.

    The recipe is one for fine-tuning: 10 epochs, at least 100 steps, of 32 pictures a step; see docs/training.md. At
    the end, results.json in --out has the accuracy, predictions.png maps of right and of wrong predictions.

    Args:
      data: A folder with CLASS/* or train/CLASS/* and val/CLASS/*, a CSV file with file,label, or a prepared data set.
      options: What training starts from, and where it goes.
      training: How long and how to train.
    """
    if training.freeze and options.random:
        raise InputError(f"--freeze {training.freeze}: the weights that it would keep are random.")
    require_extra("train", "camjax train", "grain", "tensorboardX")  # before the pictures are read
    training.join()

    # Imported here: `camjax --help` and other commands do not need them.
    from camjax.cli.compilation_cache import keep_compiled_programs
    from camjax.cli.training_report import draw_predictions, print_results, write_results
    from camjax.cli.training_run import run_training
    from camjax.evaluation.classification import classify
    from camjax.processes import is_first
    from camjax.terminal import Console, progress
    from camjax.training.fine_tuning import fine_tuning_augmentation

    out = as_path(options.out)
    console = Console(soft_wrap=True, quiet=not is_first())
    errors = Console(stderr=True, quiet=not is_first())
    pictures = _open(data, options, training, errors)
    for line in pictures.lines():
        console.print(line)
    console.print("")
    keep_compiled_programs()
    model, notes = _starting_model(options, training, pictures)
    recipe = _recipe(options, training, model, len(pictures.train))
    trained = run_training(
        model,
        pictures.train,
        recipe,
        out=out,
        augment=fine_tuning_augmentation(model.input_size),
        intervals=training.intervals(len(pictures.train) // recipe.batch_size),
        console=console,
        validation=pictures.validation,
        workers=training.workers,
        notes=notes,
        dry_run=training.dry_run,
    )
    if trained is None:
        return
    with progress("classifying the validation pictures", errors, "pictures") as show:
        found = classify(
            trained,
            pictures.validation,
            batch_size=recipe.batch_size // recipe.accumulate,
            num_workers=training.workers,
            progress=show,
        )
    if is_first():
        with errors.status("drawing predictions"):
            draw_predictions(trained, pictures, found, out / "predictions.png", seed=training.seed)
        write_results(out, data, trained, pictures, recipe, found)
        print_results(console, found, data, out if is_address(out) else options.out)


def _open(data: str, options: TrainOptions, training: TrainingOptions, console) -> "OwnPictures":
    """The pictures; those of a run that exists have its split. The first process writes it for the others."""
    from camjax.data.own_pictures import open_own_pictures
    from camjax.processes import in_first
    from camjax.terminal import progress
    from camjax.training.checks import check_writable

    listed = as_path(options.out) / "pictures.csv"
    opened = []

    def read() -> None:
        with progress("reading the pictures", console, "files") as show:
            pictures = open_own_pictures(
                data,
                validation=options.validation,
                seed=training.seed,
                data_dir=options.data_dir,
                known=listed if listed.exists() else None,
                progress=show,
            )
        opened.append(pictures)

    def read_and_list() -> None:
        read()
        if opened[0].root is not None and not training.dry_run:
            check_writable(listed.parent)
            opened[0].write(listed)

    in_first(read_and_list)
    if not opened:
        read()
    return opened[0]


def _starting_model(
    options: TrainOptions, training: TrainingOptions, pictures: "OwnPictures"
) -> tuple["CamModel", list[tuple[str, str]]]:
    """The network to train, and what to say about it: words and sentences."""
    import warnings

    from flax import nnx

    from camjax.cli.training_run import set_image_size, starting_model
    from camjax.loading import load_model
    from camjax.models import list_models, with_new_head, with_wsol
    from camjax.models.registry import is_qualified
    from camjax.models.wsol.table import WSOL, wsol_words

    wsol = wsol_words(options.wsol)
    random = options.random
    name, weights = network_choice(options.model, None if random else options.weights)
    names = pictures.class_names
    with warnings.catch_warnings():
        # A new head is what this command is for, and the lines before the first step say it.
        warnings.filterwarnings("ignore", message=r"(?s).*(head|of the model) (is|are) new")
        if name in list_models() or is_qualified(name):
            model = starting_model(
                name,
                weights,
                len(names),
                from_scratch=random,
                dtype=training.dtype or "float32",
                seed=training.seed,
            )
        elif random:
            raise InputError(f"--weights random: {name} has weights of its own. Name a network of `camjax models`.")
        else:
            model = load_model(name, weights, dtype=training.dtype, trust=options.trust)
    kept = not random and model.class_names is not None and tuple(model.class_names) == names
    if not (kept or random):
        model = with_new_head(model, len(names), rngs=nnx.Rngs(training.seed))
    model.class_names = names
    model = with_wsol(model, wsol, rngs=nnx.Rngs(training.seed))
    if options.image_size is not None:
        set_image_size(model, (options.image_size, options.image_size))
    if random:
        start = "random weights"
    elif kept:
        start = f"{weights or name}, all of it: its classes are the same"
    else:
        start = f"{weights or name}, with a new head for {len(names)} classes"
    height, width = model.input_size
    notes = [("starts from", start), ("sees", f"{height} x {width} pixels")]
    if model.wsol is not None:
        name, *values = wsol.values()
        shown = f" ({', '.join(map(str, values))})" if values else ""
        notes.append(("method", f"{name}{shown}, which changes {WSOL[name].changes}"))
    return model, notes


def _recipe(options: TrainOptions, training: TrainingOptions, model: "CamModel", num_examples: int) -> "Recipe":
    """The recipe for fine-tuning with the options' changes; from random weights all layers learn alike."""
    from dataclasses import replace

    from camjax.models import model_spec
    from camjax.models.wsol.table import new_layers
    from camjax.training.fine_tuning import fine_tuning

    of_network = model_spec(model.created_as["name"]).new_layers if model.created_as else ("head",)
    recipe = fine_tuning(
        num_examples,
        batch_size=training.batch_size or BATCH_SIZE,
        epochs=training.epochs,
        new_layers=new_layers(model, of_network),
    )
    if options.random:
        rate = RATE_FROM_SCRATCH * recipe.batch_size / 256
        recipe = replace(recipe, learning_rate=rate, new_layers_factor=1.0, freeze_batchnorm=False)
    return training.changed_recipe(recipe, num_examples)
