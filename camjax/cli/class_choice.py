"""Classes on the command line: from what a user types to ids, and from ids to names."""

import difflib
from collections.abc import Sequence

from camjax.errors import InputError


def class_ids(classes: Sequence[str], names: Sequence[str] | None, num_classes: int) -> list[int]:
    """Ids of the classes that a user asked for; each once, in the order given.

    Args:
      classes: ids in decimal, and names: a class's whole name or one of its comma-separated parts, in upper or lower
        case.
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
            ids[_id_of_name(text, names)] = None
    return list(ids)


def _id_of_name(text: str, names: Sequence[str]) -> int:
    """The id of the one class that has this name."""
    wanted = text.strip().lower()
    words = [[word.strip() for word in name.split(",")] for name in names]
    matches = [i for i, name in enumerate(names) if wanted in (name.lower(), *map(str.lower, words[i]))]
    if len(matches) == 1:
        return matches[0]
    if matches:
        listed = "; ".join(f"{i} is {names[i]!r}" for i in matches)
        raise InputError(f"--classes {text!r} names {len(matches)} classes: {listed}. Give the id.")
    known = {word.lower(): word for of_class in words for word in of_class}
    holding = [word for word in known if wanted in word.split()]
    similar = difflib.get_close_matches(wanted, known, n=5)
    near = [repr(known[word]) for word in dict.fromkeys(holding + similar)][:8]
    hint = f"Did you mean {', '.join(near)}?" if near else "Try another word, or give the id."
    raise InputError(f"--classes {text!r}: no class of this network has that name. {hint}")


def class_name(class_id: int, names: Sequence[str] | None) -> str:
    """The name of a class, or its id if names are not known."""
    return f"class {class_id}" if names is None else names[class_id]
