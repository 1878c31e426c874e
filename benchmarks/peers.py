"""The PyTorch implementations that tests and benchmarks compare with: installing them, and importing torchvision.

    python -m benchmarks.peers

installs them into the environment of the Python that runs it. They are no extra of the package, because a
requirement on torch, or on what requires torch, is a requirement on gigabytes of CUDA wherever PyPI's build of torch
is the one for NVIDIA GPUs, as on x86-64 Linux.
"""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

COMMAND = "python -m benchmarks.peers"

WHY = """\
Installing the implementations that camjax is compared with: PyTorch, torchvision, efficientnet-lite-pytorch,
pytorch-grad-cam and torch-cam; and Equinox, whose networks camjax explains. They are no extra of the package, since
PyPI's torch for x86-64 Linux brings gigabytes of CUDA.
Where no GPU is to be measured, set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu to get the CPU build.
All but torch come without their dependencies, so that nothing that stands in the environment is replaced.
"""

# What each pip command installs. scikit-learn, with SciPy, is all that pytorch-grad-cam needs and camjax does not;
# jaxtyping and wadler-lindig are what Equinox needs beside JAX and typing-extensions, which camjax has.
STEPS = (
    ("torch==2.13.0", "scikit-learn>=1.5", "tqdm"),
    (
        "--no-deps",
        "torchvision==0.28.0",
        "efficientnet-lite-pytorch==0.1.0",
        "ttach==0.0.3",
        "grad-cam==1.5.7",
        "timm==1.0.31",
        "torchcam==0.4.1",
        "equinox==0.13.8",
        "jaxtyping==0.3.11",
        "wadler-lindig==0.1.8",
    ),
)

# The operators that importing torchvision looks up, none of which an image classifier runs (their signatures are
# torchvision's own, from its csrc/ops).
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declarations = []  # which live as long as their library object


def install() -> None:
    """Runs the pip commands of `STEPS`, printing each.

    Raises:
      subprocess.CalledProcessError: pip failed, and has said why.
    """
    print(WHY)
    for step in STEPS:
        print("pip install", *step, flush=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *step], check=True)


def missing(*modules: str) -> str | None:
    """Which of these modules are not installed and how to install them, in one sentence; None if all are here."""
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"{', '.join(absent)} not installed; to install: {COMMAND}" if absent else None


def import_torchvision() -> ModuleType:
    """torchvision, beside a torch without CUDA as well.

    PyPI's torchvision has no CPU build for Linux: beside a CPU build of torch its compiled operators cannot be
    loaded, and importing it fails for want of their names. Its image classifiers and transforms need none of them,
    so that the names are declared here, without an implementation: calling one is PyTorch's NotImplementedError.

    Raises:
      ImportError: torch or torchvision is not installed.
    """
    if reason := missing("torch", "torchvision"):
        raise ImportError(reason)
    folder = Path(importlib.util.find_spec("torchvision").origin).parent
    if "torchvision" not in sys.modules and not _operators_load(folder):
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for signature in _OPERATORS:
            library.define(signature)
        _declarations.append(library)
    return importlib.import_module("torchvision")


def _operators_load(package: Path) -> bool:
    """Whether torch can load the compiled operators that lie in torchvision's folder."""
    import torch

    for library in package.glob("_C.*"):
        try:
            torch.ops.load_library(library)
            return True
        except (ImportError, OSError):
            continue
    return False


if __name__ == "__main__":
    install()
