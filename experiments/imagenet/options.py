"""The options of `python -m experiments.imagenet`, and the recipe that they describe."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from camjax.addresses import as_path, local_path
from camjax.cli.options import OptionalFolder, OptionalName, Weights, arg
from camjax.cli.training_options import TrainingOptions, of_length
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
class Options(TrainingOptions):
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
      out: Where the run goes; runs/MODEL if not given, and nowhere for fake data. All processes must see this folder.
        The same command continues where it stopped.
    """

    TAKE_ADDRESSES = ("out",)

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
    out: OptionalFolder = None

    def __post_init__(self):
        super().__post_init__()
        if self.out is not None:
            as_path(self.out)
        if self.data_dir is not None:
            local_path(self.data_dir, "--data-dir")
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
        recipe = of_length(recipe, recipe.steps * num_examples / IMAGENET_IMAGES)
    elif options.recipe == "resnet50":
        recipe = resnet50_from_scratch(RESNET50_BATCH, num_examples=num_examples)
    else:
        recipe = wsol(options.network, "imagenet", num_examples=num_examples)
    return options.changed_recipe(recipe, num_examples)
