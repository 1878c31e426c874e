"""The formats of annotations that `camjax.data.open_annotated` opens, one file each.

A new format is a file with a `FORMAT` (see `_format.Format`) and its row in `FORMATS`.
"""

from camjax.data.annotations import box_csv, class_folders, ilsvrc_xml, label_csv, tfds_boxes, voc_xml, wsol_lists
from camjax.data.annotations._format import Format, Request

__all__ = ["FORMATS", "Format", "Request"]

FORMATS: tuple[Format, ...] = (
    wsol_lists.FORMAT,
    label_csv.FORMAT,
    voc_xml.FORMAT,
    box_csv.FORMAT,
    class_folders.FORMAT,
    ilsvrc_xml.FORMAT,
    tfds_boxes.FORMAT,
)
"""In this order: the first that recognizes a request opens it."""
