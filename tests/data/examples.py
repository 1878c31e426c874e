"""Small sources for the tests of the loader; a module of its own, because worker processes import it."""

import numpy as np


def numbered(count, *, boxes=False, shape=(4, 6, 3)):
    """Examples whose image and label say their number."""
    examples = []
    for i in range(count):
        example = {"image": np.full(shape, i, np.uint8), "label": i, "filename": f"{i}.png"}
        if boxes:
            example["bbox"] = np.array([0, 0, 1, i / count], np.float32)
        examples.append(example)
    return examples


def sizes(count):
    """Examples of random images of different sizes."""
    rng = np.random.default_rng(0)
    shapes = rng.integers(20, 40, (count, 2))
    return [{"image": rng.integers(0, 256, (*shape, 3), np.uint8), "label": i} for i, shape in enumerate(shapes)]


class Damaged(list):
    """Examples of which some cannot be read."""

    def __init__(self, examples, bad):
        super().__init__(examples)
        self.bad = frozenset(bad)

    def __getitem__(self, index):
        if index in self.bad:
            raise ValueError(f"example {index} is damaged")
        return super().__getitem__(index)
