"""Classes on the command line: from what a user types to ids, and from ids to names."""

from collections.abc import Sequence

from camjax.class_names import class_id
from camjax.errors import InputError


def class_ids(classes: Sequence[str], names: Sequence[str] | None, num_classes: int) -> list[int]:
    """Ids of the classes that a user asked for; each once, in the order given.

    Args:
      classes: ids in decimal, and names as `camjax.class_names.class_id` finds them.
      names: of the C classes, or None if they are not known.
      num_classes: C.

    Raises:
      ValueError: an id out of range, or a name that matches no class or several.
    """
    ids: dict[int, None] = {}
    for text in classes:
        if text.lstrip("-").isdecimal():
            if not 0 <= int(text) < num_classes:
                raise InputError(f"--classes {text}: out of range, the network has classes 0..{num_classes - 1}.")
            ids[int(text)] = None
        elif names is None:
            raise InputError(
                f"--classes {text!r}: the names of this network's classes are not known; give ids in "
                f"0..{num_classes - 1}."
            )
        else:
            try:
                ids[class_id(text, names)] = None
            except InputError as error:
                raise InputError(f"--classes {error}") from None
    return list(ids)


def class_name(class_id: int, names: Sequence[str] | None) -> str:
    """The name of a class, or its id if names are not known."""
    return f"class {class_id}" if names is None else names[class_id]
