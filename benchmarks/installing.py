"""How large, and how fast to import: camjax, pytorch-grad-cam and torch-cam, each with all that pip installs with it.

    python -m benchmarks.installing              # of this environment, which has to have them: make .venv/peers
    python -m benchmarks.installing --install    # also the time that pip takes, into new environments

Sizes are those of the files that the installed packages list. Times are processor time, which the network and other
programs on the machine hardly change. With --install, pip gets the other libraries in the versions of this environment,
and PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu the CPU build of PyTorch; PyPI's for Linux brings gigabytes
of CUDA.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.timing import cpu_name
from camjax.terminal import Console

ROOT = Path(__file__).parents[1]


class Package(NamedTuple):
    """What pip is given, and what a program imports to make maps of a network."""

    install: tuple[str, ...]
    code: str


TORCHVISION = "from benchmarks.peers import import_torchvision; import_torchvision(); "
CAMJAX = "import camjax; camjax.load_model, camjax.make_localize_fn, camjax.load_images"
PACKAGES = {
    "camjax": Package(("camjax",), CAMJAX),
    "camjax[train]": Package(("camjax[train]",), CAMJAX),
    "camjax[train,hub,weights,app,experiments]": Package(("camjax[train,hub,weights,app,experiments]",), CAMJAX),
    "grad-cam": Package(("grad-cam", "torch", "torchvision"), TORCHVISION + "import pytorch_grad_cam"),
    "torchcam": Package(("torchcam", "torch", "torchvision"), TORCHVISION + "import torchcam.methods"),
}


def brought(requirements: tuple[str, ...]) -> set[str]:
    """The installed packages that requirements bring, by what each says that it requires."""
    seen: set[str] = set()
    done: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        seen.add(name)
        for extra in {"", *requirement.extras} - {extra for other, extra in done if other == name}:
            done.add((name, extra))
            inner = map(Requirement, metadata.requires(name) or ())
            waiting += [one for one in inner if one.marker is None or one.marker.evaluate({"extra": extra})]
    return seen


def megabytes(names: set[str]) -> float:
    """The size of the files that packages list."""
    return sum(file.size or 0 for name in names for file in metadata.files(name) or ()) / 1e6


def seconds(words: list[object]) -> float:
    """The processor time of a program, and of those that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(word) for word in words], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def to_install(package: Package) -> float:
    """The processor time of pip, into a new environment."""
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder, "venv")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        named = [
            line.replace("camjax", str(ROOT)) if line.startswith("camjax") else f"{line}=={metadata.version(line)}"
            for line in package.install
        ]
        return seconds([venv / "bin/pip", "install", "-q", *named])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    options = parser.parse_args()
    console = Console(soft_wrap=True)
    console.print(f"{cpu_name()}, Python {sys.version.split()[0]}\n")
    console.print("| | packages | on disk | import |" + " pip install |" * options.install)
    console.print("|---|---|---|---|" + "---|" * options.install)
    for name in options.packages:
        package = PACKAGES[name]
        names = brought(package.install)
        took = statistics.median(seconds([sys.executable, "-c", package.code]) for _ in range(options.runs))
        row = f"| `{name}` | {len(names)} | {megabytes(names):,.0f} MB | {took:.1f} s |"
        console.print(row + (f" {to_install(package):.0f} s |" if options.install else ""), markup=False)


if __name__ == "__main__":
    main()
