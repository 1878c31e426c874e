"""Writing files that are there whole or not at all, whenever the process is stopped."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], *, make_parent: bool = False) -> Iterator[Path]:
    """Replaces a file once the block has written its new content in full.

        with whole_file("net.safetensors") as draft:
            save_file(tensors, draft)

    The block writes a draft next to the file. Afterwards the draft is flushed to disk, and renamed to the file in
    one step: a reader sees the old content or the new. The file's mode follows the umask, for any library that writes
    the draft. Where the block raises, the draft is removed and the file stays as it was.

    Args:
      path: of the file.
      make_parent: create its folder, and those above it, where they are missing.

    Yields:
      The path of the draft, an empty file; the block may replace it.

    Raises:
      OSError: the file cannot be written; the message names it.
    """
    path = Path(path)
    if make_parent:
        path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes that write the same file have two drafts.
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        draft.write_bytes(b"")
        mode = draft.stat().st_mode
        yield draft
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
        draft.chmod(mode)
        draft.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        # Of a full disk, Python does not say which file it was.
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_whole(path: str | os.PathLike[str], content: str | bytes, *, make_parent: bool = False) -> None:
    """Writes a file by `whole_file`; text as UTF-8."""
    with whole_file(path, make_parent=make_parent) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
