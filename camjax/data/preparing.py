"""Preparing data sets by tfds' own builders: from archives, on disk or downloaded, to ArrayRecord files.

Archives, folder, disk space and TensorFlow are checked before anything is downloaded or written: preparing ImageNet
takes hours, and should not fail at the end of them.
"""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from camjax.addresses import local_path
from camjax.data._tfds import NonMatchingChecksumError, checksums, tfds
from camjax.data.archives import Archives, base_name, file_name, published, readable_size
from camjax.data.builders import BUILT_IN, prepared_builder, tfds_folder
from camjax.errors import InputError, require_extra


@dataclass(frozen=True)
class Prepared:
    """A data set that `camjax.data.open_source` can open.

    Attributes:
      name: as given.
      directory: of its files.
      counts: the number of examples of each split.
      made: whether this call prepared it; False if it had been prepared before.
    """

    name: str
    directory: Path
    counts: dict[str, int]
    made: bool


def prepare(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    archives: str | os.PathLike | None = None,
    verify: bool = True,
) -> Prepared:
    """Prepares a data set of tensorflow-datasets for reading; one that is prepared already is left as it is.

    Args:
      name: a tfds name, such as "caltech_birds2011" or "imagenet2012:5.1.0"; or a built-in one, "scenes" or
        "look_alikes".
      data_dir: where tfds keeps its data; None is tfds' default, the environment variable TFDS_DATA_DIR or
        ~/tensorflow_datasets.
      archives: a folder with the data set's archives under their published names, for machines without internet. None
        is tfds' DATA_DIR/downloads/manual; missing archives are then downloaded, unless that needs a login.
      verify: compare sizes and checksums of the archives, and the numbers of examples, with the published ones. False
        accepts other archives: subsets, or copies that were packed again.

    Returns:
      Where it is, and how many examples each split has.

    Raises:
      FileNotFoundError: archives are missing; the message lists them.
      ImportError: TensorFlow, which tfds' builders use, is missing.
      OSError: the folder cannot be written, the disk is too small, or a download failed.
      ValueError: no such data set; it is prepared in another format (the message has the command that converts it);
        an archive or a number of examples is not the published one; or tfds' builder failed.
    """
    if archives is not None:
        local_path(archives, "archives")
    try:
        builder, made = prepared_builder(name, data_dir=data_dir), False
    except FileNotFoundError:
        if name in BUILT_IN:  # it prepares itself, and the error says what is wrong
            raise
        root = tfds_folder(data_dir)
        _build(name, root, None if archives is None else Path(archives).expanduser(), verify)
        builder, made = prepared_builder(name, data_dir=root), True
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    prepared = Prepared(name, Path(builder.data_dir), counts, made)
    if verify:
        _check_counts(prepared)
    return prepared


def _build(name: str, root: Path, folder: Path | None, verify: bool) -> None:
    """Runs the data set's builder, after all checks that can be made beforehand."""
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"--archives {folder}: no such folder")
    archives = Archives.find(name, folder or root / "downloads" / "manual")
    archives.check_complete(download=folder is None, verify=verify)
    if verify:
        archives.check_sizes()
    else:
        archives.check_validation_names()
    _check_folder(root, archives)
    advice = "Reading, training and evaluating do not need it: a separate environment is enough."
    what = f"preparing {name!r} runs tfds' own builder, which uses TensorFlow: it"
    require_extra("prepare", what, "tensorflow", advice=advice)

    root.mkdir(parents=True, exist_ok=True)
    # tfds keeps what it has unpacked, and would use it for any other archive of the same name.
    with tempfile.TemporaryDirectory(prefix="incomplete.unpacked_", dir=root) as scratch:
        builder = tfds.builder(name, data_dir=root)
        with (
            _explained_errors(archives),
            contextlib.redirect_stdout(io.StringIO()),  # tfds prints sizes that it does not know
            contextlib.nullcontext() if verify else _accepted_as_they_are(builder, archives),
        ):
            builder.download_and_prepare(
                download_dir=root / "downloads",
                download_config=tfds.download.DownloadConfig(
                    manual_dir=archives.folder, extract_dir=scratch, try_download_gcs=False
                ),
                file_format=tfds.core.FileFormat.ARRAY_RECORD,
            )


def _check_folder(root: Path, archives: Archives) -> None:
    """Checks that the folder can be written, and that the disk has room."""
    existing = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"--data-dir {root}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"--data-dir {root}: no permission to write in {existing}; give another --data-dir DIR")
    needed, free = archives.needed_space(), shutil.disk_usage(existing).free
    if sum(needed.values()) > free:
        parts = ", ".join(f"{what}: {readable_size(size)}" for what, size in needed.items() if size)
        message = (
            f"--data-dir {root}: preparing {archives.dataset!r} takes about {readable_size(sum(needed.values()))} "
            f"({parts}), but only {readable_size(free)} are free there"
        )
        # tfds deletes unfinished files when it fails, but not when it is killed.
        drafts = [*root.glob("incomplete.*"), *(root / base_name(archives.dataset)).glob("**/incomplete.*")]
        if drafts:
            message += "\nUnless a preparation is running, these are left over, and can be deleted:"
            message += "".join(f"\n  {draft}" for draft in drafts)
        raise OSError(message)


@contextlib.contextmanager
def _accepted_as_they_are(builder: tfds.core.DatasetBuilder, archives: Archives) -> Iterator[None]:
    """Lets tfds accept archives that are not the published ones, although their checksums differ from its list."""
    listed = builder.url_infos or {}
    before = dict(listed)
    paths = {file.name: file.path for file in archives.present}
    try:
        if not archives.instructions:  # tfds does not check those fetched by hand
            for url, info in before.items():
                if path := paths.get(file_name(url, info)):
                    listed[url] = checksums.compute_url_info(path)
        yield
    finally:
        listed.update(before)


@contextlib.contextmanager
def _explained_errors(archives: Archives) -> Iterator[None]:
    """Turns a builder's errors into messages that say what to do; tfds, TensorFlow and tarfile raise many types."""
    try:
        yield
    except (requests.RequestException, tfds.download.DownloadError) as error:
        raise OSError(
            f"data set {archives.dataset!r}: a download failed: {error}\n"
            "Run the command again; or fetch the files elsewhere, and give their folder as --archives DIR:"
            + "".join(f"\n  {file}" for file in archives.missing)
        ) from error
    except NonMatchingChecksumError as error:
        raise InputError(
            f"data set {archives.dataset!r}: {error}\nThe archive is damaged, or not the published one. Fetch it "
            "again, or accept it with --unverified"
        ) from error
    except OSError:
        raise
    except Exception as error:
        raise InputError(
            f"data set {archives.dataset!r}: tfds' builder failed, and nothing is prepared: "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_counts(prepared: Prepared) -> None:
    """Checks the numbers of examples against the published ones."""
    known = published(prepared.name)
    if known is None:
        return
    wrong = [
        f"  {split}: {prepared.counts.get(split, 0):,} examples; expected {count:,}"
        for split, count in known.counts.items()
        if prepared.counts.get(split, 0) != count and (split in prepared.counts or split not in known.optional)
    ]
    if wrong:
        raise InputError(
            f"data set {prepared.name!r} in {prepared.directory} is not the published one:\n" + "\n".join(wrong) + "\n"
            "For a subset, add --unverified; otherwise delete that directory and prepare the data set again."
        )
