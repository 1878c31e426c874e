"""Addresses of buckets, `gs://BUCKET/NAME` and `s3://BUCKET/NAME`, where camjax also takes a folder.

`etils.epath` stands for `pathlib` there, as in Orbax and tensorflow-datasets; fsspec's gcsfs and s3fs do the work. An
object of a bucket is written as a whole and replaced as a whole; there is no append and no rename.
"""

import contextlib
import logging
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from camjax.errors import InputError, printable, require_extra

_CLIENTS = {"gs": "gcsfs", "s3": "s3fs"}
_ADDRESS = re.compile(r"(\w{2,}):/{1,2}([^/]*)(.*)", re.DOTALL)  # a pathlib.Path drops a slash of an address


def is_address(name: str | os.PathLike[str]) -> bool:
    """Whether a name is an address: of a bucket, or of another kind."""
    return _ADDRESS.match(os.fspath(name)) is not None


def as_path(name: str | os.PathLike[str]) -> Path:
    """The path of a file or folder on this machine, with its `~` replaced, or in a bucket.

    Args:
      name: a path; or `gs://BUCKET/NAME` or `s3://BUCKET/NAME`, also as the `pathlib.Path` that was made of it.

    Returns:
      A `pathlib.Path`; for an address an `epath.Path`, which has the same methods.

    Raises:
      InputError: an address of another kind, or without a bucket, or with a character that stands for others.
      ImportError: the package that reaches such buckets is not installed.
    """
    text = os.fspath(name)
    if not (found := _ADDRESS.match(text)):
        return Path(text).expanduser()
    scheme, bucket, rest = found.groups()
    if scheme not in _CLIENTS or not bucket or set(text) & set("*?[]\\"):
        raise InputError(
            f"{printable(f'{scheme}://{bucket}{rest}')} is no address of a bucket: expected a folder, or "
            "gs://BUCKET/NAME or s3://BUCKET/NAME without the characters * ? [ ] \\."
        )
    advice = "Or mount the bucket as a folder; docs/tpu_pods.md shows how."
    require_extra("buckets", f"{scheme}://", _CLIENTS[scheme], advice=advice)
    # Where TensorFlow is installed, epath would take it for these addresses, with other credentials and without s3://.
    os.environ.setdefault("EPATH_USE_TF", "false")
    # It logs, with a traceback, each error that it also raises.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    import fsspec.config
    from etils import epath

    for protocol in ("gcs", "s3"):
        # Lists that are kept would hide what other processes write.
        fsspec.config.conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)
    return cast(Path, epath.Path(f"{scheme}://{bucket}{rest}"))


def local_path(name: str | os.PathLike[str], what: str) -> Path:
    """The path of a file or folder on this machine, with its `~` replaced.

    Raises:
      InputError: an address; the message begins with `what`, such as "--data-dir".
    """
    if found := _ADDRESS.match(os.fspath(name)):
        scheme, bucket, rest = found.groups()
        raise InputError(
            f"{what} {printable(f'{scheme}://{bucket}{rest}')}: expected a folder or file of this machine, not an "
            "address. Mount the bucket as a folder (gcsfuse for gs://, mountpoint-s3 for s3://), or copy it; "
            "docs/tpu_pods.md shows how."
        )
    return Path(name).expanduser()


def make_folder(path: Path) -> None:
    """Creates a folder and those above it. A bucket has no folders: it is written to, to see that this is allowed.

    Raises:
      OSError: that is not possible; the message says why.
    """
    if not is_address(path):
        path.mkdir(parents=True, exist_ok=True)
        return
    # mkdir would create a bucket whose name is misspelled.
    probe = path / f".camjax-{uuid.uuid4().hex}"
    upload(probe, b"")
    with reaching(path):
        probe.unlink()


def upload(path: Path, content: bytes | Path) -> None:
    """Writes an object of a bucket, from memory or from a file: it is there whole or not at all.

    Raises:
      OSError: that is not possible; the message says why.
    """
    import fsspec

    with reaching(path):
        # epath's own files would leave what they have if an exception passes.
        system, name = fsspec.url_to_fs(os.fspath(path))
        if isinstance(content, bytes):
            system.pipe_file(name, content)
        else:
            system.put_file(os.fspath(content), name)


def upload_folder(path: Path, folder: Path) -> None:
    """Writes the files of a folder, and of those below it, as objects of a bucket, many at a time; as `upload` each."""
    import fsspec

    with reaching(path):
        system, name = fsspec.url_to_fs(os.fspath(path))
        files = [file for file in folder.rglob("*") if file.is_file()]
        if files:
            system.put(
                [str(file) for file in files], [f"{name}/{file.relative_to(folder).as_posix()}" for file in files]
            )


def move_folder(path: Path, target: Path) -> None:
    """Renames a folder. In a bucket its objects are copied and then removed: a kill may leave some in both places."""
    if not is_address(path):
        path.rename(target)
        return
    import fsspec

    with reaching(path):
        system, name = fsspec.url_to_fs(os.fspath(path))
        _, new = fsspec.url_to_fs(os.fspath(target))
        for found in system.find(name):
            system.cp_file(found, f"{new}{found.removeprefix(name)}")
        system.rm(name, recursive=True)


@contextlib.contextmanager
def reaching(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what the clients of buckets raise, of many classes, into one OSError; leaves other paths alone."""
    try:
        yield
    except Exception as error:
        if not is_address(path) or isinstance(error, InputError | ImportError):
            raise
        reason = printable(error) or type(error).__name__
        raise OSError(
            f"{os.fspath(path)} can't be reached ({type(error).__name__}: {reason}). Check the bucket's name, your "
            "rights there and the network. What is written before stays."
        ) from error
