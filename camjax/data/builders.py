"""Finding data sets that tensorflow-datasets has prepared, and preparing the built-in ones."""

import contextlib
import difflib
import io
import os
import tempfile
from pathlib import Path

from camjax.addresses import local_path
from camjax.data._tfds import tfds
from camjax.data.archives import base_name
from camjax.data.look_alikes import LookAlikes
from camjax.data.scenes import Composites, Scenes
from camjax.errors import InputError, reading

ARRAY_RECORD = tfds.core.FileFormat.ARRAY_RECORD

BUILT_IN: dict[str, type[Composites]] = {"scenes": Scenes, "look_alikes": LookAlikes}
"""Data sets that prepare themselves on first use."""

# Packages that the command `tfds` always imports; apache-beam does not install together with recent
# versions of protobuf.
_TFDS_TOOL = "tensorflow-datasets tensorflow-cpu importlib-resources apache-beam mlcroissant"


def prepared_builder(name: str, *, data_dir: str | os.PathLike | None = None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set that is prepared as ArrayRecord, set to read these files.

    Arguments and errors are those of `camjax.data.open_source`. The data sets of `BUILT_IN` prepare themselves.
    """
    constants = tfds.core.constants
    # None where tfds looks itself, since programs can add folders to its own one.
    as_imported = data_dir is None and constants.get_default_data_dir() == constants.DATA_DIR
    directory = None if as_imported else tfds_folder(data_dir)
    check_data_dir(directory)
    builder = _built_in(name, directory) if name in BUILT_IN else _prepared(name, directory)
    with reading_prepared(name, directory):
        formats = builder.info.available_file_formats()
    if ARRAY_RECORD not in formats:
        raise InputError(
            f"data set {name!r} is prepared in {builder.data_dir} as {builder.info.file_format.value}, which has no "
            "random access; expected array_record. Convert it with tfds' own tool, in an environment of its own:\n"
            "  python -m venv tfds-tool\n"
            f"  tfds-tool/bin/pip install {_TFDS_TOOL}\n"
            f"  tfds-tool/bin/tfds convert_format --dataset_version_dir={builder.data_dir} "
            "--out_file_format=array_record"
        )
    builder.info.set_file_format(ARRAY_RECORD, override=True, override_if_initialized=True)
    return builder


def tfds_folder(data_dir: str | os.PathLike | None) -> Path:
    """The folder of a function's argument `data_dir`, or tfds' default: TFDS_DATA_DIR as it is now.

    tfds itself reads the variable once, when it is imported.
    """
    return Path(tfds.core.constants.get_default_data_dir() if data_dir is None else data_dir).expanduser()


def check_data_dir(directory: Path | None) -> None:
    """Raises ValueError for tfds' folder if it is an address, or has characters that tfds takes for a pattern of names.

    tfds itself reads at addresses, but ArrayRecord's reader opens files of this machine only.
    """
    local_path(directory or tfds.core.constants.DATA_DIR, "data_dir")
    path = str(directory or tfds.core.constants.DATA_DIR)
    if found := sorted(set(path) & set("*?[")):
        raise InputError(
            f"data_dir is {path!r}, and tensorflow-datasets takes {' and '.join(found)} in it for a pattern of file "
            "names: expected a folder without these characters. Rename it, or give another one."
        )


def reading_prepared(name: str, directory: Path | None) -> contextlib.AbstractContextManager[None]:
    """Turns what tfds and protobuf raise about damaged files of a prepared data set into a ValueError."""
    return reading(
        f"data set {name!r} in {directory or tfds.core.constants.DATA_DIR}",
        "as tensorflow-datasets prepared it",
        "Delete its folder, and prepare it again.",
    )


def _prepared(name: str, directory: Path | None) -> tfds.core.DatasetBuilder:
    with reading_prepared(name, directory):
        try:
            # From the prepared data set's own files: the builder that made them may need TensorFlow.
            return tfds.core.read_only_builder.builder_from_files(
                name, **({} if directory is None else {"data_dir": directory})
            )
        except tfds.core.DatasetNotFoundError as error:
            not_found = error
    raise _not_found(name, directory) from not_found


def _not_found(name: str, data_dir: Path | None) -> Exception:
    known = {*BUILT_IN, *tfds.list_builders(with_community_datasets=False)}
    if base_name(name) not in known:
        near = difflib.get_close_matches(name, known)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "tfds.list_builders() lists them"
        names = ", ".join(map(repr, BUILT_IN))
        return InputError(f"unknown data set {name!r}; expected {names} or a name that tfds knows: {hint}")
    option = "" if data_dir is None else f" --data-dir {data_dir}"
    where = data_dir or tfds.core.constants.DATA_DIR
    return FileNotFoundError(
        f"data set {name!r} is not prepared in {where}. Prepare it with:\n"
        '  pip install "camjax[prepare]"\n'
        f"  camjax prepare {name}{option}"
    )


def _built_in(name: str, data_dir: Path | None) -> Composites:
    """The builder of a built-in data set, which prepares its data if they are missing."""
    build = BUILT_IN[name]
    with reading_prepared(name, data_dir):
        builder = build(data_dir=data_dir)
    directory = Path(builder.data_dir)
    if not directory.exists():
        print(f"Preparing the data set {name!r} in {directory} (once, about 10 seconds).", flush=True)
        _prepare(build, directory, Path(builder.data_dir_root))
        builder = build(data_dir=data_dir)
    if not builder.is_prepared():
        raise FileNotFoundError(
            f"{directory} exists, but holds no complete copy of the data set {name!r}. Delete it to have the data set "
            "prepared again"
        )
    return builder


def _prepare(build: type[Composites], directory: Path, root: Path) -> None:
    """Prepares a data set next to its directory, then moves it there in one step: no process sees half of it."""
    root.mkdir(parents=True, exist_ok=True)
    # tfds does so too, but draws the name from the global random generator: two processes with the same seed would
    # write into the same directory.
    with tempfile.TemporaryDirectory(prefix=f"incomplete.{build.name}_", dir=root) as scratch:
        draft = build(data_dir=scratch)
        # tfds prints a dozen lines and bars for what takes seconds.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            draft.download_and_prepare(file_format=ARRAY_RECORD)
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(draft.data_dir, directory)
        except OSError:
            if not directory.exists():  # where it does, another process was faster, with the same bytes
                raise
