"""An annotation whose pictures are all done, from which every file is written."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from camjax.annotating.pictures import Places
from camjax.annotating.records import Picture


class ClassNames(NamedTuple):
    """The names of C classes in files.

    Attributes:
      shown: for people and annotation tools: each name once.
      read: for camjax's readers, which find the class by it: the id in decimal where the name would not do.
    """

    shown: Sequence[str]
    read: Sequence[str]


@dataclass(frozen=True)
class Finished:
    """What writers of files read.

    Attributes:
      pictures: begins anew at the first picture; in the order of their names, one part at a time in memory.
      names: of the classes.
      places: where the files about a picture go.
    """

    pictures: Callable[[], Iterator[Picture]]
    names: ClassNames
    places: Places
