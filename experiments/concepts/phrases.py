"""Phrases of captions: finding the frequent ones, and testing whether a caption has one."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from camjax.errors import InputError

_STOP_WORDS = """
    a about above across after against all along also am among an and another any are around as at away back be been
    before behind being below beneath beside besides between both but by can could d did do does doing down during each
    either every few for from get gets getting had has have having he her here hers him his how i if in inside into is
    it its itself just ll m many me more most much my near next no nor not of off on one onto or other our out outside
    over own re s several she so some such t than that the their them then there these they this those through to
    together too toward towards under until up upon us ve very was we were what when where which while who whom whose
    why will with within without would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that say nothing about a picture by themselves: no mined phrase begins or ends with one."""


def normalized(captions: Iterable[str]) -> str:
    """Captions as one text, which has a phrase if it contains `normalized([phrase])`.

    Words are runs of letters and digits, in lower case, each between two spaces. Hyphens and apostrophes separate
    words; all other punctuation and the ends of captions separate phrases, and become bars.

    >>> normalized(["A red T-shirt, by the sea.", "Waves"])
    ' a red t shirt | by the sea | waves '
    """
    parts = [part for caption in captions for part in re.split(r"[^\w\s'\u2019-]+", caption.lower())]
    words = [" ".join(re.findall(r"\w+", part)) for part in parts]
    return f" {' | '.join(filter(None, words))} "


def mine_phrases(texts: Sequence[str], *, min_images: int, lengths: tuple[int, int] = (1, 4)) -> dict[str, int]:
    """The frequent phrases: runs of words that neither begin nor end with a stop word.

    A phrase that only occurs within one longer phrase ("hydrant" in "fire hydrant") is left out.

    Args:
      texts: the normalized captions of each image.
      min_images: the fewest images that a phrase has to be in.
      lengths: fewest and most words of a phrase.

    Returns:
      Phrase -> the number of images that have it in a caption; most frequent first, equally frequent ones by falling
      length, then in alphabetical order.
    """
    frequent: dict[tuple[str, ...], int] = {}
    for length in range(1, lengths[1] + 1):
        # A phrase is no more frequent than its beginning and its end, so only few have to be counted.
        counts = Counter(gram for text in texts for gram in _grams(text, length, frequent))
        frequent |= {gram: count for gram, count in counts.items() if count >= min_images}
    whole = {gram: count for gram, count in frequent.items() if not {gram[0], gram[-1]} & STOP_WORDS}
    covered = {
        part
        for gram, count in whole.items()
        for size in range(1, len(gram))
        for part in (gram[start : start + size] for start in range(len(gram) - size + 1))
        if whole.get(part) == count
    }
    kept = [gram for gram in whole if gram not in covered and len(gram) >= lengths[0]]
    return {" ".join(gram): whole[gram] for gram in sorted(kept, key=lambda gram: (-whole[gram], -len(gram), gram))}


def frequent_phrases(texts: Sequence[str], number: int, *, min_images: int, lengths: tuple[int, int]) -> list[str]:
    """The most frequent phrases of each number of words, without those that more than half of the images have.

    Args:
      texts: as in `mine_phrases`.
      number: most phrases of each number of words.
      min_images: as in `mine_phrases`.
      lengths: as in `mine_phrases`.

    Raises:
      ValueError: there are no such phrases.
    """
    counts = mine_phrases(texts, min_images=min_images, lengths=lengths)
    # A phrase that most images have does not tell them apart.
    frequent = [phrase for phrase, count in counts.items() if 2 * count <= len(texts)]
    if not frequent:
        raise InputError(
            f"no phrase of {lengths[0]} to {lengths[1]} words is in {min_images} to {len(texts) // 2} of the "
            f"{len(texts)} training images. Give --phrases, or a smaller --min-images."
        )
    return [
        phrase
        for length in range(lengths[0], lengths[1] + 1)
        for phrase in [phrase for phrase in frequent if phrase.count(" ") == length - 1][:number]
    ]


def checked_phrases(phrases: Iterable[str], texts: Sequence[str], *, least: int) -> list[str]:
    """Normalizes the phrases of the user, and checks that they can be learned; repeated ones count once.

    Args:
      phrases: words without punctuation between them.
      texts: as in `mine_phrases`.
      least: fewest images with, and fewest without, each phrase.

    Raises:
      ValueError: an invalid phrase, or too few images with or without it.
    """
    chosen = []
    for phrase in phrases:
        text = normalized([phrase])
        if "|" in text or not text.strip():
            raise InputError(f"--phrases {phrase!r}: expected words without punctuation between them.")
        positives = sum(text in other for other in texts)
        if min(positives, len(texts) - positives) < least:
            raise InputError(
                f"{positives} of the {len(texts)} training images have {phrase!r} in a caption: expected at least "
                f"{least} with it, and as many without. Give another phrase, or more images."
            )
        chosen.append(text.strip())
    return list(dict.fromkeys(chosen))


def _grams(text: str, length: int, frequent: dict[tuple[str, ...], int]) -> set[tuple[str, ...]]:
    """The runs of `length` words in an image's captions whose two runs of one word less are frequent."""
    found = set()
    for part in text.split("|"):
        words = part.split()
        for start in range(len(words) - length + 1):
            gram = tuple(words[start : start + length])
            if length == 1 or (gram[:-1] in frequent and gram[1:] in frequent):
                found.add(gram)
    return found
