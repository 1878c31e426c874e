"""The options of `python -m experiments.imagenet`, and the recipe that they describe."""

import re
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import tyro

from camjax.cli.options import Count, OptionalCount, OptionalFolder, OptionalName, OptionalRate, Weights, arg
from camjax.errors import InputError
from camjax.models import model_spec
from camjax.models.head import Pool
from camjax.models.shapes import model_shapes
from camjax.training import Recipe
from camjax.training.published import IMAGENET_IMAGES, googlenet_cam_release, resnet50_from_scratch, wsol

IMAGENET = "imagenet2012"
NETWORKS = {"googlenet_cam": "googlenet_gap", "resnet50": "resnet50", "wsol": "resnet50_wsol"}
RESNET50_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train a network on ImageNet from class labels, by a published recipe.

    Attributes:
      recipe: googlenet_cam: fine-tuning, as for the released GoogLeNet-CAM. resnet50: from random weights, in large
        batches. wsol: fine-tuning, as in the benchmark of weakly supervised localization.
      model: A network of `camjax models`; if not given, googlenet_gap, resnet50 or resnet50_wsol, by the recipe.
      weights: What fine-tuning starts from: a file (.caffemodel, .pth, .safetensors, ...), an address (hf://,
        https://), the directory of a run, or "random". EfficientNet-Lite0 to 2 need none.
      head: Whether the head, and layers before it that the original network lacks, start from random weights or come
        from --weights. If not given, they are new in networks with such layers, and the head of others is kept.
      pool: Global average ("gap") or global max ("gmp") pooling.
      dataset: A prepared data set of images with labels; "scenes" prepares itself.
      train_split: The split or slice to train on, such as "train[:99%]".
      eval_split: The split or slice to evaluate on.
      data_dir: Where the data set is prepared; tensorflow-datasets' default if not given.
      fake_data: Made-up images in place of a data set, to measure speed: "images" are ready for the network, to time
        only the network; "jpeg" are decoded and cropped, to time everything but the disk.
      batch_size: Images a step, over all devices, in place of the recipe's (64, 1024, 32). The learning rate changes in
        proportion, and the number of epochs stays.
      epochs: Epochs in place of the recipe's; warm-up and decays keep their shares.
      steps: The length in steps, in place of --epochs.
      learning_rate: The peak of the learning rate, in place of the recipe's.
      accumulate: Parts that a batch is split into, one after the other in the memory of one.
      ema_decay: Average the weights with this decay, such as 0.9999, and evaluate and keep the average.
      freeze: "backbone" trains only the new layers, "batchnorm" keeps all BatchNorms as they are in --weights.
      dtype: The type in which convolutions compute; if not given, bfloat16 for resnet50 and float32 for the others.
      seed: Seed of random weights, of the order of the images and of their augmentation.
      eval_every: Steps between two evaluations; about an epoch if not given.
      checkpoint_every: Steps between two checkpoints, a divisor of --eval-every; about 1,000 if not given.
      workers: Processes that read images; 0 reads in threads.
      out: Where the run goes; runs/MODEL if not given, and nowhere for fake data. All processes must see this folder.
        The same command continues where it stopped.
      dry_run: Describe the run (settings, parameters, memory, steps), and do not train.
      coordinator: host:port of process 0, on machines that JAX can't join by itself; see docs/tpu_pods.md.
      num_processes: The number of processes that train together; with --coordinator.
      process_id: The number of this process, from 0; with --coordinator.
    """

    recipe: Literal["googlenet_cam", "resnet50", "wsol"]
    model: OptionalName = None
    weights: Weights = None
    head: Annotated[Literal["new", "kept"] | None, arg("{new,kept}", default=False)] = None
    pool: Pool = "gap"
    dataset: Annotated[str, arg("NAME")] = IMAGENET
    train_split: Annotated[str, arg("SPLIT")] = "train"
    eval_split: Annotated[str, arg("SPLIT")] = "validation"
    data_dir: OptionalFolder = None
    fake_data: Annotated[Literal["images", "jpeg"] | None, arg("{images,jpeg}", default=False)] = None
    batch_size: OptionalCount = None
    epochs: Annotated[float | None, arg("N", default=False)] = None
    steps: OptionalCount = None
    learning_rate: OptionalRate = None
    accumulate: Count = 1
    ema_decay: Annotated[float | None, arg("SHARE", default=False)] = None
    freeze: Annotated[Literal["backbone", "batchnorm"] | None, arg("{backbone,batchnorm}", default=False)] = None
    dtype: Annotated[Literal["float32", "bfloat16"] | None, arg("{float32,bfloat16}", default=False)] = None
    seed: Count = 0
    eval_every: OptionalCount = None
    checkpoint_every: OptionalCount = None
    workers: Count = 0
    out: OptionalFolder = None
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    coordinator: Annotated[str | None, arg("HOST:PORT", default=False)] = None
    num_processes: OptionalCount = None
    process_id: OptionalCount = None

    def __post_init__(self):
        for name in ("batch_size", "epochs", "steps", "eval_every", "checkpoint_every"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected more than 0.")
        for name in ("data_dir", "out"):
            if re.match(r"\w{2,}:/", str(getattr(self, name))):  # a Path drops a slash of an address
                raise InputError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: expected a folder, not an address. Mount the "
                    "bucket as a folder; docs/tpu_pods.md shows how."
                )
        joining = [value is None for value in (self.coordinator, self.num_processes, self.process_id)]
        not_random = self.weights not in (None, "random")
        for wrong, message in (
            (self.recipe == "resnet50" and not_random, "--recipe resnet50 --weights: it starts from random weights."),
            (
                self.recipe != "resnet50" and not self.weights and not model_spec(self.network).packaged,
                f"--recipe {self.recipe} fine-tunes {self.network}, whose weights do not come with camjax: give "
                "--weights FILE (`camjax models` and docs/models.md say which), or --weights random.",
            ),
            (self.head and self.from_scratch, f"--head {self.head} with random weights: the head is random, too."),
            (self.freeze and self.from_scratch, f"--freeze {self.freeze}: the weights that it would keep are random."),
            (self.steps and self.epochs, "--steps and --epochs: leave out one of them."),
            (
                self.checkpoint_every and (self.eval_every or 0) % self.checkpoint_every,
                f"--eval-every {self.eval_every} is no multiple of --checkpoint-every {self.checkpoint_every}: the "
                "best checkpoint is the best of those that are evaluated.",
            ),
            (
                self.fake_data and (self.data_dir or self.eval_every or self.dataset != IMAGENET),
                "--fake-data with --data-dir, --dataset or --eval-every: nothing is read, and nothing evaluated.",
            ),
            (
                self.fake_data and not (self.steps or self.epochs or self.dry_run),
                "--fake-data without a length: add --steps 200.",
            ),
            (
                self.recipe == "wsol" and self.dataset.startswith("caltech_birds"),
                "--recipe wsol has ImageNet's settings here; those for CUB are those of python -m experiments.cub.",
            ),
            (any(joining) and not all(joining), "--coordinator, --num-processes, --process-id: all three, or none."),
        ):
            if wrong:
                raise InputError(message)
        model_shapes(self.network, pool=self.pool)  # an error for an unknown network, or one without pooling
        recipe_of(self, IMAGENET_IMAGES)  # an error for numbers that do not fit together

    @property
    def network(self) -> str:
        """The name of the network."""
        return self.model or NETWORKS[self.recipe]

    @property
    def from_scratch(self) -> bool:
        """Whether training starts from random weights."""
        return self.recipe == "resnet50" or self.weights == "random"


def recipe_of(options: Options, num_examples: int) -> Recipe:
    """The published recipe for this number of training images, with the options' changes."""
    if options.recipe == "googlenet_cam":
        recipe = replace(googlenet_cam_release(), new_layers=model_spec(options.network).new_layers)
        recipe = _of_length(recipe, recipe.steps * num_examples / IMAGENET_IMAGES)
    elif options.recipe == "resnet50":
        recipe = resnet50_from_scratch(RESNET50_BATCH, num_examples=num_examples)
    else:
        recipe = wsol(options.network, "imagenet", num_examples=num_examples)
    batch_size = options.batch_size or recipe.batch_size
    factor = batch_size / recipe.batch_size
    epochs_in_steps = options.epochs and options.epochs * num_examples / batch_size
    recipe = _of_length(recipe, options.steps or epochs_in_steps or recipe.steps / factor)
    return replace(
        recipe,
        batch_size=batch_size,
        learning_rate=recipe.learning_rate * factor if options.learning_rate is None else options.learning_rate,
        accumulate=options.accumulate,
        ema_decay=options.ema_decay,
        frozen=("backbone",) if options.freeze == "backbone" else (),
        freeze_batchnorm=options.freeze == "batchnorm",
        seed=options.seed,
    )


def _of_length(recipe: Recipe, steps: float) -> Recipe:
    """The recipe with another number of steps; warm-up and decays keep their shares."""
    times = {name: getattr(recipe, name) for name in ("warmup_steps", "decay_every", "decay_first")}
    scaled = {name: max(1, round(time * steps / recipe.steps)) for name, time in times.items() if time}
    return replace(recipe, steps=max(1, round(steps)), **scaled)
