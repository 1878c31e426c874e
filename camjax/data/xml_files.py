"""Reading XML files that strangers may have written: small ones, complete, and without entities."""

import xml.etree.ElementTree as ET

from camjax.errors import InputError


class _Tree(ET.TreeBuilder):
    """Refuses a document type: entities, which can swell without end, are declared only there."""

    def doctype(self, name: str, public_id: str | None, system_id: str | None) -> None:
        raise InputError("it declares a document type, which annotations do not need and entity bombs use")


def parse_xml(data: bytes, name: str, max_bytes: int) -> ET.Element:
    """Parses a file's bytes, or the first `max_bytes` + 1 of a larger file, and returns the root.

    Raises:
      ValueError: not XML, a document type, or too large a file. The message names the file.
    """
    if len(data) > max_bytes:
        raise InputError(f"{name} is larger than {max_bytes} bytes: expected the annotation of images.")
    parser = ET.XMLParser(target=_Tree())
    try:
        parser.feed(data)
        return parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{name} cannot be read as XML: {error}. Get a complete copy of it.") from error


def pixels(text: str | None, what: str) -> float:
    """Reads a number of pixels; raises a ValueError about `what` for any other text, and for None."""
    try:
        return float(text or "")
    except ValueError:
        found = "nothing" if text is None else repr(text)
        raise InputError(f"{what} is {found}: expected a number of pixels.") from None
