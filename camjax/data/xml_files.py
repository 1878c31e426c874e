"""XML files of data sets, which strangers may have written: small, whole, and without entities."""

import xml.etree.ElementTree as ET


class _Tree(ET.TreeBuilder):
    """Refuses a document type: entities, which can swell without end, are declared there and nowhere else."""

    def doctype(self, name: str, public_id: str | None, system_id: str | None) -> None:
        raise ValueError("it declares a document type, which no annotation needs and which may hide entity bombs")


def parse_xml(data: bytes, name: str, max_bytes: int) -> ET.Element:
    """Parses a file's bytes.

    Args:
      data: the bytes; `max_bytes` + 1 of them are enough of a file that is too large.
      name: of the file, for messages.
      max_bytes: of the largest file that is parsed.

    Returns:
      The root.

    Raises:
      ValueError: not XML, a document type, or a file that is too large. The message names the file.
    """
    if len(data) > max_bytes:
        raise ValueError(f"{name} is larger than {max_bytes} bytes: expected the annotation of images.")
    parser = ET.XMLParser(target=_Tree())
    try:
        parser.feed(data)
        return parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"{name} cannot be read as XML: {error}. Get a complete copy of it.") from error


def pixels(text: str | None, what: str) -> float:
    """A number of pixels; ValueError, with `what` in front, where the text is none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        found = "nothing" if text is None else repr(text)
        raise ValueError(f"{what} is {found}: expected a number of pixels.") from None
