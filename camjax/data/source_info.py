"""What a source of examples says of itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceInfo:
    """What a source holds.

    Attributes:
      name: the data set, as tfds calls it.
      split: the split or slice that was opened, such as "train[:90%]".
      class_names: one name for each label, in the order of the labels.
      num_examples: the number of examples in this split or slice.
      keys: the keys of every example, such as ("image", "label", "bbox", "filename").
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    num_examples: int
    keys: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """The number of classes: labels are 0..num_classes-1."""
        return len(self.class_names)
