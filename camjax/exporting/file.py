"""The file of an exported network: a zip of JSON, of programs in StableHLO, and of arrays as NumPy writes them.

- `about.json`: `About`, what the network takes and gives, and the hashes of all that follows;
- `programs/top.mlirbc`, `programs/asked.mlirbc`: for the top classes, and for classes that are given;
- `arrays/NAME.npy`: what the programs take before the images, in the order that `about.json` has.

None of the three can hold code of Python's. `numpy.load` reads the file as it reads any .npz.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from typing_extensions import TypedDict  # which pydantic reads; typing's own from Python 3.12 on

from camjax.addresses import as_path, reaching
from camjax.errors import InputError, few, printable, reading
from camjax.files import whole_file
from camjax.json_files import parse_json
from camjax.programs import ArrayType

FORMAT = 1
"""The version of the file that is written and read."""

SUFFIX = ".camjax"

ABOUT, PROGRAMS, ARRAYS = "about.json", "programs/", "arrays/"

MOST_ABOUT, MOST_PROGRAM = 1 << 26, 1 << 28
"""Bytes of `about.json` and of a program that are read, at most."""

_ADVICE = "Copy the file again, or export the network again."


class Input(TypedDict):
    """The images that a network takes: RGB in 0..255, uint8. The programs do what follows, mean and std included.

    Attributes:
      size: (H, W) in pixels, to which images have to be resized.
      any_size: whether the programs take images of other sizes too, of `min_size` pixels a side and more.
      mean: of what is subtracted; R, G, B in 0..255.
      std: of what is divided by.
      channel_order: of the first layer.
      crop_share: of the height and width of the largest centered part of an image, what center crops take.
      interpolation: by which center crops are resized.
    """

    size: tuple[int, int]
    any_size: bool
    min_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: str
    crop_share: float
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]


class ProgramTypes(TypedDict):
    """The types of a program, as in `camjax.programs.Program`."""

    arguments: list[ArrayType]
    results: list[ArrayType]


class About(TypedDict):
    """What an exported file says of itself.

    Attributes:
      format: `FORMAT`.
      versions: of camjax and JAX, which wrote it.
      model: the network's name, or its class.
      weights_sha256: of the network, as `camjax evaluate` prints it.
      num_classes: C.
      class_names: C names; None where they are not known.
      multi_label: of the network, see `camjax.models.CamModel`.
      method: by which maps are made.
      layer: whose maps they are; None for the last feature map.
      threshold: of boxes; it is the array `threshold` too.
      top_k: the number of classes that have maps.
      input: what it takes.
      outputs: names of what it gives, in the order of the programs' results.
      platforms: on which it runs.
      calling_convention: of the programs.
      arrays: names of what the programs take before the images, in their order.
      programs: by name.
      sha256: of each of the other members of the zip.
    """

    format: int
    versions: dict[str, str]
    model: str
    weights_sha256: str
    num_classes: int
    class_names: list[str] | None
    multi_label: bool
    method: str
    layer: str | None
    threshold: float
    top_k: int
    input: Input
    outputs: list[str]
    platforms: list[str]
    calling_convention: int
    arrays: list[str]
    programs: dict[str, ProgramTypes]
    sha256: dict[str, str]


class _Version(TypedDict):
    format: int


def is_exported_file(path: Any) -> bool:
    """Whether the path is that of a file by `camjax export`, by its suffix."""
    return isinstance(path, str | os.PathLike) and Path(path).suffix == SUFFIX and not as_path(path).is_dir()


def write_exported_file(
    path: str | os.PathLike[str],
    about: Mapping[str, Any],
    programs: Mapping[str, bytes],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Writes the file, the same bytes for the same content.

    Args:
      path: of the file, or an address in a bucket; an existing one is replaced.
      about: `About`, without `format`, `arrays` and `sha256`.
      programs: name -> StableHLO.
      arrays: name -> array.

    Raises:
      OSError: it cannot be written.
    """
    members = {f"{PROGRAMS}{name}.mlirbc": code for name, code in programs.items()}
    members |= {f"{ARRAYS}{name}.npy": _npy(array) for name, array in arrays.items()}
    said = {
        "format": FORMAT,
        **about,
        "arrays": list(arrays),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in members.items()},
    }
    with whole_file(path) as draft, zipfile.ZipFile(draft, "w") as file:
        for name, content in {ABOUT: json.dumps(said, indent=1).encode(), **members}.items():
            member = zipfile.ZipInfo(name)  # of 1980, not of now
            member.compress_type = zipfile.ZIP_STORED if name.startswith(ARRAYS) else zipfile.ZIP_DEFLATED
            file.writestr(member, content)


def read_exported_file(path: str | os.PathLike[str]) -> tuple[About, dict[str, bytes], dict[str, np.ndarray]]:
    """Reads a file of `write_exported_file`: what it says, programs by name, and arrays by name.

    Raises:
      OSError: it cannot be read.
      InputError: it is damaged or changed, of a newer format, or something else.
    """
    path = as_path(path)
    with reaching(path):
        content = path.read_bytes()
    with _opened(path, content) as file:
        sizes = {member.filename: member.file_size for member in file.infolist()}
        text = _member(path, file, sizes, ABOUT, MOST_ABOUT)
        version = parse_json(text, _Version, name=f"{path}: {ABOUT}", advice=_ADVICE)["format"]
        if version != FORMAT:
            raise InputError(
                f"{path} is an exported network of format {version}; this camjax reads format {FORMAT}. Install a "
                "newer camjax, or export the network again with this one."
            )
        about = parse_json(text, About, name=f"{path}: {ABOUT}", advice=_ADVICE)
        names = {f"{PROGRAMS}{name}.mlirbc": MOST_PROGRAM for name in about["programs"]}
        types = _types_of_arrays(path, about)
        names |= {f"{ARRAYS}{name}.npy": len(content) for name in types}
        if strange := sizes.keys() ^ names.keys() ^ {ABOUT}:
            raise InputError(f"{path} is damaged or changed: {few(sorted(strange))} missing or unexpected. {_ADVICE}")
        members = {}
        for name, most in names.items():
            members[name] = _member(path, file, sizes, name, most)
            if hashlib.sha256(members[name]).hexdigest() != about["sha256"].get(name):
                raise InputError(f"{path} is damaged or changed: the hash of {name} is not the one it had. {_ADVICE}")
    programs = {name: members[f"{PROGRAMS}{name}.mlirbc"] for name in about["programs"]}
    arrays = {name: _array(path, members[f"{ARRAYS}{name}.npy"], name, kind) for name, kind in types.items()}
    return about, programs, arrays


@contextmanager
def _opened(path: Path, content: bytes) -> Iterator[zipfile.ZipFile]:
    with reading(path, "a network by camjax export", _ADVICE), zipfile.ZipFile(io.BytesIO(content)) as file:
        yield file


def _member(path: Path, file: zipfile.ZipFile, sizes: Mapping[str, int], name: str, most: int) -> bytes:
    if sizes.get(name, 0) > most:
        raise InputError(f"{path}: {printable(name)} has {sizes[name]} bytes, more than {most}. {_ADVICE}")
    return file.read(name)


def _types_of_arrays(path: Path, about: About) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """The shapes and dtypes that all programs have for the arrays."""
    names = about["arrays"]
    types = [program["arguments"][: len(names)] for program in about["programs"].values()]
    if len({*names}) < len(names) or any(kinds != types[0] or len(kinds) < len(names) for kinds in types):
        raise InputError(f"{path} is damaged or changed: programs and arrays do not fit. {_ADVICE}")
    with reading(path, "a network by camjax export", _ADVICE):
        return {
            name: (tuple(int(side) for side in shape.split(",") if side), np.dtype(dtype))
            for name, (shape, dtype) in zip(names, types[0], strict=True)
        }


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)
    return file.getvalue()


def _array(path: Path, content: bytes, name: str, kind: tuple[Sequence[int], np.dtype]) -> np.ndarray:
    shape, dtype = kind
    with reading(path, "a network by camjax export", _ADVICE):
        file = io.BytesIO(content)
        np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0(file)
        if header != (shape, False, dtype):
            raise InputError(f"{path}: the array {printable(name)} is {header}, expected {kind}. {_ADVICE}")
        return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape)
