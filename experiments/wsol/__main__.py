r"""The benchmark for weakly supervised localization (Choe et al. 2020, arXiv:2001.07437; 2022, arXiv:2007.04178).

    python -m experiments.wsol --dataset cub --network resnet50 --weights resnet50.pth --method adl
    python -m experiments.wsol --dataset openimages --network vgg16 --weights vgg16.pth --method acol --trials 30
    python -m experiments.wsol --dataset cub --network resnet50 --weights resnet50.pth --method cam --trials 0
    python -m experiments.wsol --dataset cub --network deit_small_patch16_224 --weights timm --method tscam --trials 0
    python -m experiments.wsol --dataset scenes --network small_gap --weights random --trials 0    # without data

The data are as github.com/clovaai/wsolevaluation distributes them: a folder of images (--folder, dataset/CUB) and a
folder of text lists with train, val and test in it (--lists, metadata/CUB); of OpenImages30k also a folder of masks
(--masks; the images' if not given), some of whose regions are to be ignored. docs/reproducing_cub.md is about what
makes numbers differ.

**The protocol.** Networks train on train-weaksup (train) from class labels alone. Hyperparameters are chosen on
train-fullsup (val; of OpenImages the first 5 of 25 images of each class), by --trials 30 random draws: the learning
rate log-uniform in 1e-5..1, a map of 14 x 14 or 28 x 28, and the method's own options from the published ranges
(`camjax.models.wsol.table`). The benchmark's code has no search; its authors name table 5 of the 2020 paper as the
ranges (github.com/clovaai/wsolevaluation/issues/8). These here are quoted from memory of it: check them before you
quote them again. The defaults are those of its config.py.
--method acol threshold=0.7 keeps an option, --learning-rate the rate. Each trial is a run directory, scored after its
last step by MaxBoxAccV2 or PxAP. With --trials 0 nothing is searched: the options have the benchmark's defaults, and
the learning rate is a published one (`camjax.training.published.wsol`).

Then the best trial's settings train with --seeds 3 seeds (the first is the trial itself), and the last checkpoints are
evaluated on test: with the threshold that is best on train-fullsup, as one would in use, and with the metric's own, the
best one on test, which is what the benchmark publishes. The test split is not opened before the search is over, and
once it has been used, another search in the same folder is an error.

Everything else is the benchmark's: SGD with Nesterov momentum 0.9 in batches of 32, 50 epochs of CUB or 10 of the
others, squashed to 256 pixels, cropped at random to 224, and flipped; `camjax.training.published.wsol` has the rest.
Networks of other names take the settings of its ResNet-50, and vision transformers those of TS-CAM (Gao et al. 2021,
arXiv:2103.14862), `camjax.training.published.tscam`: AdamW, on CUB 60 epochs in batches of 128. Published for DeiT-S
with TS-CAM on CUB: 71.3 top-1 and 87.7 GT-known localization, at a tenth of a map's maximum; ours of these names are at
a fifth, and MaxBoxAcc is GT-known localization at the best share.

Our numbers: none yet on these data, which were not available where this was written; a miniature of each goes through
this command in the tests. Published numbers are printed beside ours only where ours are on all test images.

Cost: a trial on CUB passes 300,000 images forward and backward, one on ImageNet 13 million; not measured on a GPU.

trials.csv has all trials. Each finished stage is kept in results.json: the same command continues after it, and a
training that was interrupted goes on from its last checkpoint.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from camjax.cli.options import (
    ALONE,
    Count,
    Folder,
    OptionalCount,
    OptionalFolder,
    Processes,
    Weights,
    arg,
    at_least_one,
)
from camjax.cli.training_options import RecipeOptions
from camjax.data.annotation import AnnotatedSource
from camjax.errors import InputError
from camjax.evaluation.runner import Evaluation
from camjax.models.wsol.table import WSOL, wsol_words
from camjax.processes import is_first
from camjax.terminal import Console
from camjax.training import Recipe
from experiments.common.benchmark import evaluate_split
from experiments.common.command import start
from experiments.common.stages import Stages
from experiments.wsol.data import DATASETS, Dataset, FirstOfEachClass, Split, open_split
from experiments.wsol.search import (
    Hyperparameters,
    base_recipe,
    best_of,
    draw,
    network_names,
    starting_point,
    train_in,
)
from experiments.wsol.tables import final_table, trials_table, write_trials


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions):
    """Search, train and test a method for weakly supervised localization, by the benchmark's protocol.

    Attributes:
      dataset: cub, imagenet or openimages; scenes needs no download.
      network: vgg16, inception_v3 or resnet50, with maps of 14 x 14 or 28 x 28; or a network of `camjax models`.
      method: cam, has, cutmix, adl, acol, spg or tscam, and options that are not searched, as in "acol threshold=0.7".
      weights: What training starts from: a file of ImageNet weights (torchvision's), an address, or "random".
      folder: The folder of images; dataset/CUB, dataset/ILSVRC or dataset/OpenImages if not given.
      lists: The folder of lists with train, val and test; metadata/CUB and so on if not given.
      masks: What the masks in the lists are relative to; the folder of images if not given.
      out: Where runs, tables and figures go. The same command continues where it stopped.
      trials: Random draws of the hyperparameters; 0 takes the defaults.
      seeds: Trainings with the best hyperparameters, for mean and deviation.
      search_seed: Seed of the draws.
      batch_size: Images a step, over all devices, in place of 32 (of scenes 64); the learning rate stays as it is.
      processes: Which processes train together.
    """

    dataset: Annotated[Literal["cub", "imagenet", "openimages", "scenes"], arg("NAME")]
    network: Annotated[str, arg("NAME")]
    method: Annotated[tuple[str, ...], arg("METHOD [OPTION=NUMBER ...]")] = ("cam",)
    weights: Weights = None
    folder: OptionalFolder = None
    lists: OptionalFolder = None
    masks: OptionalFolder = None
    out: Folder = Path("runs/wsol")
    trials: Count = 30
    seeds: Count = 3
    search_seed: Count = 0
    batch_size: OptionalCount = None
    processes: Processes = ALONE

    def __post_init__(self):
        super().__post_init__()
        wsol_words(self.method)
        at_least_one(self, "batch_size", "seeds")
        for name, least in (("trials", 0), ("search_seed", 0)):
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise InputError(f"--{option} {getattr(self, name)}: expected at least {least}.")

    @property
    def fixed(self) -> dict[str, float]:
        """The options of the method that were given."""
        given = {word.partition("=")[0] for word in self.method[1:]}
        return {name: value for name, value in wsol_words(self.method).items() if name in given}

    def recipe(self, network: str, num_examples: int) -> Recipe:
        """The recipe for a network of the registry, before a learning rate is drawn."""
        recipe = base_recipe(DATASETS[self.dataset], network, num_examples)
        rate = recipe.learning_rate if self.learning_rate is None else self.learning_rate
        changed = self.changed(recipe, num_examples, batch_size=self.batch_size)
        return Recipe(**{**vars(changed), "learning_rate": rate})


def main(options: Options) -> None:
    """Searches on train-fullsup, trains, and only then opens the test split."""
    options.processes.join(preemption=True)
    console = Console(quiet=not is_first())
    dataset, stages = DATASETS[options.dataset], Stages(options.out)
    train = _opened(options, "train")
    fullsup = _opened(options, "val")
    if dataset.fullsup_per_class is not None:
        fullsup = FirstOfEachClass(fullsup, dataset.fullsup_per_class)
    method = options.method[0] if options.method else "cam"
    subject = {
        "dataset": options.dataset,
        "images": [len(train), len(fullsup)],
        "network": options.network,
        "weights": options.weights,
        "method": method,
        "fixed": options.fixed,
    }
    chosen, folder = _search(options, dataset, train, fullsup, subject, stages, console)

    results = []
    test = _opened(options, "test")
    for seed in range(options.seeds):
        directory = folder if seed == 0 else options.out / "seeds" / str(seed)

        def compute(seed=seed, directory=directory) -> dict:
            trained = _train(options, chosen, train, directory, seed, console)
            if isinstance(trained, str):
                raise InputError(f"{directory}: seed {seed} of the best hyperparameters diverged. {trained}")
            found = {}
            for name, source in (("fullsup", fullsup), ("test", test)):
                found[name] = _evaluated(options, dataset, trained, source, directory / name, subject, console)
            return _numbers(dataset, found["fullsup"], found["test"])

        settings = {**subject, **_in_json(chosen), "test": len(test), **_settings(options, chosen, train, seed)}
        results.append(stages.run(f"test, seed {seed}", settings, compute, together=True))
    whole = dataset.counts[0] == len(train) and dataset.counts[2] == len(test)
    console.print(final_table(dataset, options.dataset, method, options.network, results, whole))
    console.print(f"Saved {stages.path}, and runs beside it", soft_wrap=True)


def _search(options, dataset, train, fullsup, subject, stages, console) -> tuple[Hyperparameters, Path]:
    """The best hyperparameters on train-fullsup, and the run directory of their trial."""
    method = subject["method"]
    if options.trials == 0:
        network = network_names(options.network)[0]
        rate = options.recipe(network, len(train)).learning_rate
        config = {"method": method, **WSOL[method].checked(options.fixed)}
        return Hyperparameters(network, rate, config), options.out / "seeds" / "0"

    def run_all() -> dict:
        trials: dict[int, dict] = {}
        for number in range(options.trials):
            parameters = draw(
                options.search_seed, number, options.network, method, options.fixed, options.learning_rate
            )
            directory = options.out / "trials" / f"{number:03}"

            def compute(parameters=parameters, directory=directory) -> dict:
                trained = _train(options, parameters, train, directory, 0, console)
                if isinstance(trained, str):
                    return {"score": None, "error": trained}
                found = _evaluated(options, dataset, trained, fullsup, directory / "fullsup", subject, console)
                return {"score": found.metrics["cam"][dataset.metric].compute()[dataset.score]}

            settings = {**subject, **_in_json(parameters), **_settings(options, parameters, train, 0)}
            result = stages.run(f"trial {number}", settings, compute, together=True)
            trials[number] = {"parameters": _in_json(parameters), **result}
            if is_first():
                write_trials(options.out / "trials.csv", trials, dataset.score)
        return {str(number): trial for number, trial in trials.items()}

    # One stage: once the test split has been used, results.json refuses another search.
    searched = {**subject, "trials": options.trials, "search_seed": options.search_seed}
    kept = stages.run("search", searched, run_all, together=True)
    trials = {int(number): trial for number, trial in kept.items()}
    best = best_of(trials)
    console.print(trials_table(trials, dataset.score, best))
    fields = trials[best]["parameters"]
    own = {name: value for name, value in fields.items() if name not in ("network", "learning_rate")}
    return Hyperparameters(fields["network"], fields["learning_rate"], own), options.out / "trials" / f"{best:03}"


def _train(options, parameters, train, directory, seed, console):
    recipe = options.recipe(parameters.network, len(train))
    model, recipe = starting_point(parameters, recipe, options.weights, train, seed)
    augment = DATASETS[options.dataset].augment(model.input_size)
    return train_in(directory, model, recipe, train, augment=augment, workers=options.workers, console=console)


def _evaluated(options, dataset, model, source, directory, subject, console) -> Evaluation:
    metrics = ("ilsvrc", "maxboxacc", "maxboxaccv2") if source.has_boxes else ("pxap",)
    subject = {**subject, "model": subject["network"]}
    return evaluate_split(
        model,
        source,
        directory,
        subject,
        metrics=metrics,
        batch_size=options.batch_size or 32,
        workers=options.workers,
        console=console,
        figures=source.info.split == "test",
    )


def _numbers(dataset: Dataset, fullsup: Evaluation, test: Evaluation) -> dict[str, float]:
    """What the table has of a seed, in percent."""
    of_test, of_fullsup = test.metrics["cam"], fullsup.metrics["cam"]
    best = of_test[dataset.metric].compute()
    numbers = {dataset.score: best[dataset.score]}
    if dataset.metric == "maxboxaccv2":
        ious = ("30", "50", "70")
        numbers |= {f"  IoU 0.{iou[0]}": best[f"MaxBoxAccV2_{iou}"] for iou in ious}
        at = _at_thresholds_of(of_fullsup["maxboxaccv2"], of_test["maxboxaccv2"], "MaxBoxAccV2", ious)
        numbers["thresholds of train-fullsup"] = sum(at.values()) / len(at)
        numbers |= {f"  IoU 0.{iou[0]}, threshold of train-fullsup": at[iou] for iou in ious}
        numbers["MaxBoxAcc"] = of_test["maxboxacc"].compute()["MaxBoxAcc"]
        (numbers["MaxBoxAcc, threshold of train-fullsup"],) = _at_thresholds_of(
            of_fullsup["maxboxacc"], of_test["maxboxacc"], "MaxBoxAcc", ("50",)
        ).values()
        paper = of_test["ilsvrc"].compute()
        numbers["GT-known localization"] = paper["gt_known_localization"]
        numbers["top-1 localization"] = 100 - paper["top1_localization_error"]
        numbers["top-1 accuracy"] = 100 - paper["top1_classification_error"]
    else:
        numbers["PxAP on train-fullsup"] = of_fullsup["pxap"].compute()["PxAP"]
    return numbers


def _at_thresholds_of(fullsup: Any, test: Any, name: str, ious: tuple[str, ...]) -> dict[str, float]:
    """By IoU, the rate on test at the threshold that is best on train-fullsup."""
    chosen, curve = fullsup.curve(), test.curve()
    return {iou: float(curve[f"{name}_{iou}"][chosen[f"{name}_{iou}"].argmax()]) for iou in ious}


def _opened(options: Options, split: Split) -> AnnotatedSource:
    dataset = DATASETS[options.dataset]
    images = options.folder or Path("dataset", dataset.folder)
    lists = options.lists or Path("metadata", dataset.folder)
    return open_split(dataset, split, images, lists, options.masks)


def _in_json(parameters: Hyperparameters) -> dict[str, Any]:
    fields = asdict(parameters)
    return {**fields.pop("wsol"), **fields}


def _settings(options: Options, parameters: Hyperparameters, train: AnnotatedSource, seed: int) -> Mapping[str, Any]:
    recipe = vars(options.recipe(parameters.network, len(train)))
    return {"recipe": {**recipe, "learning_rate": parameters.learning_rate, "seed": seed}}


if __name__ == "__main__":
    start("wsol", main, Options)
