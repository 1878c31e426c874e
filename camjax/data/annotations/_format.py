"""What a format of annotations is, and the request by which `open_annotated` chooses one."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from camjax.addresses import as_path
from camjax.data.annotation import AnnotatedSource
from camjax.errors import InputError

OPTIONS = ("data_dir", "boxes", "blacklist", "lists", "masks", "class_names")
"""The options of `open_annotated`; each format takes some of them."""


@dataclass(frozen=True)
class Request:
    """The arguments of `open_annotated`, with the user's home in their paths filled in.

    Attributes:
      is_folder: whether `dataset` is a folder of images, not the name of a data set of tfds.
    """

    dataset: str
    split: str
    is_folder: bool
    data_dir: str | os.PathLike[str] | None = None
    boxes: Path | None = None
    blacklist: Path | None = None
    lists: Path | None = None
    masks: Path | None = None
    class_names: Sequence[str] | None = None

    @property
    def folder(self) -> Path:
        """`dataset` as a path."""
        return as_path(self.dataset)


@dataclass(frozen=True)
class Format:
    """A format of annotations.

    Attributes:
      title: what the data set is, for messages: "a folder of images with boxes in a CSV file".
      options: the `OPTIONS` that it takes.
      recognizes: whether a request is for this format.
      open: opens the data set of a request, or raises FileNotFoundError or ValueError.
    """

    title: str
    options: tuple[str, ...]
    recognizes: Callable[[Request], bool]
    open: Callable[[Request], AnnotatedSource]

    def check_options(self, request: Request) -> None:
        """Raises ValueError if a request has options that the format does not take."""
        wrong = [name for name in OPTIONS if getattr(request, name) is not None and name not in self.options]
        if wrong:
            raise InputError(
                f"{', '.join(wrong)} cannot be used with {request.dataset!r}, which is opened as {self.title}, which "
                f"takes {', '.join(self.options)}."
            )
