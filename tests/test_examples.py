"""The scripts of `examples/` run with stand-ins for a cloud's programs; their training commands run to `--dry-run`."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
import tyro
import yaml
from skimage import data, io

from experiments.imagenet.__main__ import main
from experiments.imagenet.options import Options
from tests.experiments.colors import TINY
from tests.tiny_tfds import prepare_tfds

EXAMPLES = Path(__file__).parents[1] / "examples"
CLOUD = ["create", "install", "train", "log", "stop", "delete"]
WORDS = {"tpu_vm.sh": CLOUD, "tpu_slice.sh": [*CLOUD, "state"], "gpu_node.sh": [""], "slurm.sbatch": [""]}
CHIPS = {"tpu_vm.sh": 4, "tpu_slice.sh": 16, "gpu_node.sh": 8, "slurm.sbatch": 32, "jobset.yaml": 16}

STAND_IN = f"""#!{sys.executable} -IS
import json, os, subprocess, sys
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
with open(os.environ["RECORD"], "a") as record:
    record.write(json.dumps([name, *words]) + "\\n")
remote = [word.removeprefix("--command=") for word in words if word.startswith("--command=")]
if remote:  # on a machine of the cloud
    sys.exit(subprocess.run(["bash", "-c", remote[0] + "\\nwait"], cwd=os.environ["HOME"]).returncode)
if name == "srun":
    sys.exit(subprocess.run(words[[word.startswith("-") for word in words].index(False) :]).returncode)
if name == "pgrep":
    sys.exit(1)  # no such process
if name == "python" and "experiments.imagenet" in words:
    sys.exit(int(os.environ.get("ENDS_WITH", 0)))
"""
PROGRAMS = ["gcloud", "git", "curl", "sudo", "gcsfuse", "lsb_release", "pkill", "pgrep", "tail", "python3", "srun"]
PROGRAMS += ["scontrol", "docker", "kubectl"]


@pytest.fixture
def calls(tmp_path):
    """Runs a script with a word, in a home where nothing but stand-ins is reached; returns its calls of programs."""
    clone = tmp_path / "camjax"
    places = [tmp_path / "bin" / name for name in PROGRAMS] + [tmp_path / ".local/bin/uv"]
    places += [clone / ".venv/bin/python", clone / ".venv-gpu/bin/python"]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(STAND_IN)
        place.chmod(0o755)
    (clone / "examples").symlink_to(EXAMPLES)
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    environment = {"HOME": str(tmp_path), "PATH": path, "RECORD": str(tmp_path / "record"), "SLURM_JOB_ID": "7"}

    def run(name, word="", code=0, **more):
        script = ["bash", f"examples/{name}", *word.split()]
        done = subprocess.run(script, cwd=clone, env=environment | more, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert code or not done.stderr, done.stderr
        record = tmp_path / "record"
        return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []

    return run


def trained(calls):
    """The options of the one training command among the calls."""
    (words,) = (call[3:] for call in calls if call[1:3] == ["-m", "experiments.imagenet"])
    return words


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A folder with a prepared imagenet2012 of few images."""
    folder = tmp_path_factory.mktemp("tfds")
    io.imsave(folder / "cat.jpg", data.chelsea())
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=1000)}
    examples = [{"image": str(folder / "cat.jpg"), "label": 285}] * 128
    prepare_tfds(folder, "imagenet2012", features, {"train": examples, "validation": examples[:2]})
    return folder


def dry_run(words, imagenet, capsys, *more):
    """What the command says that it would do, with a small data set and a folder in place of those of a cloud."""
    here = ["--data-dir", str(imagenet), "--out", str(imagenet / "run"), "--dry-run"]
    options = tyro.cli(Options, args=[*words, *here, *more])
    main(options)
    return options, capsys.readouterr().out


def jobset():
    return yaml.safe_load((EXAMPLES / "jobset.yaml").read_text())


def pod_of(found):
    (group,) = found["spec"]["replicatedJobs"]
    return group["template"]["spec"], group["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", WORDS)
def test_a_script_is_bash(name):
    subprocess.run(["bash", "-n", EXAMPLES / name], check=True)
    lines = (EXAMPLES / name).read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash" and "set -euo pipefail" in lines


def test_every_example_is_tried():
    """Those in Python by tests/test_python_examples.py."""
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix not in (".py", "")} == set(CHIPS)


@pytest.mark.parametrize("name", CHIPS)
def test_its_training_command(name, calls, imagenet, capsys):
    words = pod_of(jobset())[1]["containers"][0]["args"] if name == "jobset.yaml" else None
    words = words or trained(calls(name, "train" if name.startswith("tpu") else ""))
    assert "--out" in " ".join(words)
    options, said = dry_run(words, imagenet, capsys, "--model", TINY)
    assert options.recipe == "resnet50" and options.workers > 0
    assert options.batch_size % CHIPS[name] == 0
    assert f"of {options.batch_size} images" in said and "written to  " in said


@pytest.mark.long
@pytest.mark.parametrize("name", CHIPS)
def test_its_training_command_as_written(name, calls, imagenet, capsys):
    words = pod_of(jobset())[1]["containers"][0]["args"] if name == "jobset.yaml" else None
    words = words or trained(calls(name, "train" if name.startswith("tpu") else ""))
    assert "25,557,032 parameters" in dry_run(words, imagenet, capsys)[1]


@pytest.mark.parametrize("name", ["tpu_vm.sh", "tpu_slice.sh"])
def test_each_step_in_the_cloud(name, calls):
    for word in WORDS[name]:
        calls(name, word)
    found = calls(name, "", code=2)
    clouds = [call for call in found if call[:2] == ["gcloud", "compute"]]
    assert len(clouds) == len(WORDS[name])
    for call in clouds:
        assert {"--project=my-project", "camjax"} <= set(call) and any(w.startswith("--zone=") for w in call), call
    assert [call for call in found if call[0] == "pkill"] == [["pkill", "-TERM", "-f", "[e]xperiments.imagenet"]]


def test_slurm_queues_a_stopped_run_again(calls):
    assert ["scontrol", "requeue", "7"] not in calls("slurm.sbatch")
    assert ["scontrol", "requeue", "7"] in calls("slurm.sbatch", code=143, ENDS_WITH="143")
    settings = dict(
        line.removeprefix("#SBATCH --").split("=")
        for line in (EXAMPLES / "slurm.sbatch").read_text().splitlines()
        if line.startswith("#SBATCH") and "=" in line
    )
    tasks = int(settings["nodes"]) * int(settings["ntasks-per-node"])
    assert tasks == CHIPS["slurm.sbatch"] and settings["ntasks-per-node"] == settings["gpus-per-node"]


@pytest.mark.long
def test_tasks_of_slurm_find_each_other(calls, imagenet, tmp_path):
    """Two tasks on this machine, as srun would start them: with its variables, and without options that join them."""
    words = [*trained(calls("slurm.sbatch")), "--data-dir", str(imagenet), "--out", str(tmp_path / "run")]
    words += ["--model", TINY, "--batch-size", "8", "--steps", "2", "--workers", "0"]
    slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "experiments.imagenet", *words],
            cwd=EXAMPLES.parent,
            env=os.environ | slurm | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    try:
        first, second = (task.communicate(timeout=300)[0] for task in tasks)
    finally:
        for task in tasks:
            task.kill()
    assert [task.returncode for task in tasks] == [0, 0], first + second
    assert "devices     2 x cpu" in first and "step 2/2" in first and "step 2/2" not in second


def test_gpu_node_installs_once(calls):
    installs = [call for call in calls("gpu_node.sh") if "pip" in call]
    assert len(installs) == 1 and "jax[cuda13]" in installs[0]
    assert len([call for call in calls("gpu_node.sh") if "pip" in call]) == 1


def test_the_jobset_has_a_pod_for_each_machine():
    """The fields of JobSet v1alpha2, and numbers that belong together."""
    found = jobset()
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    job, pod = pod_of(found)
    (container,) = pod["containers"]
    chips = math.prod(map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
    assert chips == CHIPS["jobset.yaml"] == job["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    assert job["completions"] == job["parallelism"] and job["backoffLimit"] == 0
    assert container["command"] == ["python", "-m", "experiments.imagenet"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert volumes == {mount["name"] for mount in container["volumeMounts"]} | {"gke-gcsfuse-cache"}
