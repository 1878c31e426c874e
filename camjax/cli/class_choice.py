"""Classes on the command line: from what a user types to ids, and from ids to names."""

import warnings
from collections.abc import Iterable, Sequence

from camjax.class_names import class_id
from camjax.errors import InputError, printable
from camjax.figure_text import undrawable


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
        digits = text.removeprefix("-")
        if digits.isascii() and digits.isdecimal():
            # Longer numbers are out of range, and int() refuses very long ones.
            digits = digits.lstrip("0") or "0"
            if text.startswith("-") or len(digits) > len(str(num_classes)) or int(digits) >= num_classes:
                raise InputError(
                    f"--classes {printable(text)}: out of range, the network has classes 0..{num_classes - 1}."
                )
            ids[int(digits)] = None
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


def figure_names(class_ids: Iterable[int], names: Sequence[str] | None) -> dict[int, str]:
    """Class id -> its name for a figure, or "class 3" where no installed font can draw the name, with a warning."""
    found = {int(class_id): class_name(class_id, names) for class_id in class_ids}
    if missing := undrawable("".join(found.values())):
        warnings.warn(
            f"no installed font has the characters {' '.join(missing)}: the figure has the ids of these classes. "
            "Install a font that has them, such as Noto Sans CJK for Chinese, Japanese and Korean.",
            stacklevel=2,
        )
    return {class_id: f"class {class_id}" if undrawable(name) else name for class_id, name in found.items()}
