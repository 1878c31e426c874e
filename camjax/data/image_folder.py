"""Any folder of images as a data set."""

import os
from collections.abc import Sequence
from pathlib import Path

from camjax.data.annotated import open_annotated
from camjax.data.annotation import AnnotatedSource


def open_image_folder(
    folder: str | os.PathLike[str],
    split: str,
    *,
    boxes: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> AnnotatedSource:
    """Opens a folder of images.

    The images are those in the sub-folder named as the split, or in the folder itself for the split "all". Their class
    is the sub-folder that they lie in (deeper folders do not matter), or the label that the file of boxes gives.

    Args:
      folder: of images, see `camjax.data.image_files.IMAGE_SUFFIXES`; other files are ignored.
      split: a sub-folder such as "val", or "all".
      boxes: a CSV file whose names are relative to the images' folder (see `camjax.data.annotations.box_csv`), or a
        folder of VOC-style XML files, named as their images (see `camjax.data.annotations.voc_xml`); None for labels
        alone. An image that these leave out has no boxes.
      class_names: the classes in the order of their labels, such as the model's; None takes those that occur, sorted.
        If all that occur are whole numbers (below 100,000), these are the labels.

    Returns:
      The source, see `AnnotatedSource`. Boxes refer to the stored pixels, and images are not turned by their EXIF tag.

    Raises:
      FileNotFoundError: the folder or the file of boxes is missing, or lists an image that is.
      ValueError: no images; an image without a class, with two, or with one that is not in `class_names`; an invalid
        file of boxes. The message names the file, and the line where there is one.
    """
    return open_annotated(Path(folder), split, boxes=boxes, class_names=class_names)
