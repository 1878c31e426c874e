"""Folders of data sets as they are distributed: the files that they must have, and the error if one is missing."""

import textwrap
from collections.abc import Iterable
from pathlib import Path


def missing_layout(folder: Path, tree: str, where: str, missing: Iterable[str] = ()) -> FileNotFoundError:
    """The error for a folder without the layout of its data set.

    Args:
      folder: that was given.
      tree: the expected layout, one name a line, indented below its folder.
      where: a sentence or two: where to get the data set, and the option that takes its folder.
      missing: the missing names, relative to the folder; empty if the folder itself is missing.

    Returns:
      The error, to be raised by the caller.
    """
    missing = [str(folder / name) for name in missing] or [str(folder)]
    rest = f" and {len(missing) - 3} others are" if len(missing) > 3 else " are" if len(missing) > 1 else " is"
    layout = textwrap.indent(textwrap.dedent(tree).strip("\n"), "    ")
    return FileNotFoundError(f"{', '.join(missing[:3])}{rest} missing. Expected:\n  {folder}/\n{layout}\n{where}")


def check_layout(folder: Path, names: Iterable[str], tree: str, where: str) -> None:
    """Checks that a folder has the files that its data set needs.

    Args:
      folder: of the data set.
      names: files and folders, relative to it.
      tree: as in `missing_layout`.
      where: as in `missing_layout`.

    Raises:
      FileNotFoundError: the folder or one of the names is missing; the message shows the tree.
    """
    if not folder.is_dir():
        raise missing_layout(folder, tree, where)
    if missing := [name for name in names if not (folder / name).exists()]:
        raise missing_layout(folder, tree, where, missing)
