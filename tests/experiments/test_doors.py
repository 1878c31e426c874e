"""What holds for every experiment: its folder, its help, its options, and its errors."""

import ast
import dataclasses
import importlib
import runpy
import sys
import typing
from collections import defaultdict
from pathlib import Path

import pytest
import tyro

import experiments
from camjax.cli.options import ProcessOptions

FOLDERS = [path.parent for path in sorted(Path(experiments.__file__).parent.glob("*/__main__.py"))]
NAMES = [folder.name for folder in FOLDERS]
WITH_SAMPLE = ["class_units", "concepts", "generic_features", "scene_objects", "text_detector", "vqa"]


def door(name):
    return importlib.import_module(f"experiments.{name}.__main__")


def parsed(name, words):
    return tyro.cli(door(name).Options, args=words.split())


def test_the_experiments():
    assert sorted([*WITH_SAMPLE, "cub", "imagenet", "imagenet_localization", "scenes", "wsol"]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_door_says_how_to_run_it_and_where_results_go(name):
    assert f"    python -m experiments.{name}" in door(name).__doc__
    (out,) = (field for field in dataclasses.fields(door(name).Options) if field.name == "out")
    assert out.default == (None if name == "imagenet" else Path("runs", name))
    assert ("--sample" in door(name).__doc__) == (name in WITH_SAMPLE)


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_no_class_but_the_options_is_in_the_door(folder):
    """Processes that read images import the classes of what they read, and can't import them from a `__main__`."""
    tree = ast.parse((folder / "__main__.py").read_text())
    assert {node.name for node in tree.body if isinstance(node, ast.ClassDef)} <= {"Options"}


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_sentence(name, capsys):
    with pytest.raises(SystemExit) as exit_code:
        parsed(name, "--help")
    assert exit_code.value.code == 0
    printed = capsys.readouterr().out
    options = door(name).Options
    shared = [ProcessOptions] if hasattr(options, "processes") else []
    lines = [line.strip() for cls in (*options.__mro__, *shared) for line in (cls.__doc__ or "").splitlines()]
    assert bool(shared) == (name != "scenes")
    for field in [
        field for cls in (options, *shared) for field in dataclasses.fields(cls) if field.name != "processes"
    ]:
        assert f"--{field.name.replace('_', '-')}" in printed
        sentences = [line for line in lines if line.startswith(f"{field.name}: ")]
        assert sentences and len(sentences[0].split()) > 2, field.name


def test_an_option_takes_the_same_in_every_experiment():
    found = defaultdict(dict)
    for name in NAMES:
        for option, kind in typing.get_type_hints(door(name).Options, include_extras=True).items():
            metavars = [note.metavar for note in getattr(kind, "__metadata__", ()) if hasattr(note, "metavar")]
            found[option][name] = metavars[0] if metavars else str(kind)
    # A run to train or to fine-tune starts from a network; a folder has no class for each label in CUB and ImageNet.
    allowed = {"model": {"NAME", "NAME|RUN"}, "dataset": {"NAME", "NAME|DIR"}}
    for option, metavars in found.items():
        assert set(metavars.values()) <= allowed.get(option, {next(iter(metavars.values()))}), (option, metavars)


WRONG = [
    ("class_units", "--sample --dataset scenes", "one of them"),
    ("class_units", "", "expected --dataset"),
    ("class_units", "--dataset scenes", "no --classes"),
    ("class_units", "--sample --data-dir x", "--data-dir with --sample"),
    ("class_units", "--sample --units 0", "--units 0: expected at least 1"),
    ("class_units", "--sample --threshold 1", "threshold"),
    ("concepts", "--num-phrases 0", "--num-phrases 0: expected at least 1"),
    ("concepts", "--min-images 2", "--min-images 2: expected at least 3"),
    ("concepts", "--words 3 2", "--words 3 2"),
    ("concepts", "--held-out 1", "--held-out 1"),
    ("concepts", "--negatives 0", "--negatives 0"),
    ("concepts", "--rounds -1", "--rounds -1"),
    ("concepts", "--captions a.csv", "--captions together with --folder"),
    ("concepts", "--captions a.csv --folder a --sample", "without --sample"),
    ("cub", "--threshold 1", "threshold"),
    ("cub", "--limit-train 0", "--limit-train 0: expected at least 1"),
    ("cub", "--batch-size 0", "--batch-size 0: expected at least 1"),
    ("cub", "--skip-finetuning --epochs 3", "--epochs with --skip-finetuning"),
    ("cub", "--finetune-weights resnet50.pth", "--finetune-model"),
    ("generic_features", "", "no data set: expected at least one of --sun397,"),
    ("generic_features", "--sample --caltech101", "--sample with --caltech101"),
    ("generic_features", "--sample --splits 0", "--splits 0: expected at least 1"),
    ("imagenet", "--recipe resnet50 --steps 3 --epochs 3", "leave out one of them"),
    ("imagenet_localization", "--limit 0", "--limit 0: expected at least 1"),
    ("scene_objects", "", "expected one of --ade, --folder, --scene-list and --sample"),
    ("scene_objects", "--sample --ade x", "expected one of --ade"),
    ("scene_objects", "--ade x --data-dir y", "for scene_parse150"),
    ("scene_objects", "--sample --scenes a", "--scenes with --sample"),
    ("scene_objects", "--sample --threshold 1", "threshold=1.0"),
    ("scene_objects", "--sample --least-overlap 0", "--least-overlap 0.0"),
    ("scene_objects", "--sample --batch-size 0", "--batch-size 0: expected at least 1"),
    ("scenes", "--images 0", "--images 0: expected at least 1"),
    ("text_detector", "", "expected --svt and --outdoor, or --sample"),
    ("text_detector", "--svt x", "expected --svt and --outdoor"),
    ("text_detector", "--sample --svt x", "--sample with a folder"),
    ("text_detector", "--sample --batch-size 0", "--batch-size 0: expected at least 1"),
    ("wsol", "--dataset cub --network vgg16 --seeds 0", "--seeds 0: expected at least 1"),
    ("wsol", "--dataset cub --network vgg16 --method acol rate=1", "acol has no option rate"),
    ("vqa", "", "one of them"),
    ("vqa", "--sample --vqa x", "one of them"),
    ("vqa", "--vqa x --test train2014", "another one to answer"),
    ("vqa", "--vqa x --train", "one split or more"),
    ("vqa", "--vqa x --train test2015", "secret"),
    ("vqa", "--vqa x --epochs 0", "--epochs 0: expected at least 1"),
    ("vqa", "--sample --version v2", "the sample has its own"),
]


@pytest.mark.parametrize(("name", "words", "message"), WRONG, ids=[" ".join(case[:2]) for case in WRONG])
def test_options_that_do_not_go_together(name, words, message, capsys):
    with pytest.raises(SystemExit) as exit_code:
        parsed(name, words)
    # The message is in a box, which breaks its lines.
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert exit_code.value.code == 2 and message in printed


NOT_PREPARED = "is not prepared in {}"
MISSING = [
    ("class_units", "--dataset imagenet2012 --classes 1 --data-dir {}", NOT_PREPARED, "camjax prepare imagenet2012"),
    ("wsol", "--dataset cub --network vgg16 --lists {}", "{}/train/image_ids.txt", "--lists"),
    ("concepts", "--data-dir {}", NOT_PREPARED, "camjax prepare coco_captions"),
    ("concepts", "--captions {}/a.csv --folder {}", "{}/a.csv is missing. Expected:", "--captions a CSV file"),
    ("cub", "--data-dir {}", NOT_PREPARED, "camjax prepare caltech_birds2011"),
    ("generic_features", "--caltech101 --data-dir {}", NOT_PREPARED, "camjax prepare caltech101"),
    ("generic_features", "--indoor67 {}/gone", "{}/gone is missing. Expected:", "Give the folder as --indoor67"),
    ("imagenet", "--recipe resnet50 --data-dir {}", NOT_PREPARED, "camjax prepare imagenet2012"),
    (
        "imagenet",
        "--recipe wsol --weights {}/gone.pth --fake-data images --steps 1",
        "{}/gone.pth",
        "",
    ),
    ("imagenet_localization", "--weights-dir {}/gone", "--weights-dir {}/gone", "not found"),
    ("scene_objects", "--ade {}/gone", "{}/gone is missing. Expected:", "ADEChallengeData2016 as --ade"),
    ("scenes", "--data-dir {}/a_file", "{}/a_file", ""),
    ("text_detector", "--svt {}/gone --outdoor {}", "{}/gone is missing. Expected:", "folder svt1 as --svt"),
    ("vqa", "--vqa {}/gone", "{}/gone is missing. Expected:", "Give the folder as --vqa"),
]


@pytest.mark.parametrize(("name", "words", "missing", "advice"), MISSING, ids=[" ".join(case[:2]) for case in MISSING])
def test_missing_data_is_named_with_what_to_do(name, words, missing, advice, monkeypatch, capsys, tmp_path):
    (tmp_path / "a_file").touch()
    module = f"experiments.{name}"
    monkeypatch.delitem(sys.modules, f"{module}.__main__", raising=False)
    monkeypatch.setattr(sys, "argv", [module, *words.replace("{}", str(tmp_path)).split()])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_code:
        runpy.run_module(module, run_name="__main__")
    printed = capsys.readouterr().err
    assert exit_code.value.code == 1 and printed.startswith(f"python -m {module}: ")
    assert missing.replace("{}", str(tmp_path)) in printed and advice in printed and "Traceback" not in printed


def test_all_experiments_are_asked_for_missing_data():
    assert sorted({name for name, *_ in MISSING}) == NAMES and sorted({name for name, *_ in WRONG}) == NAMES
