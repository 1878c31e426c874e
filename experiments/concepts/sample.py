"""Our own captions of the sample photographs, for a trial without a data set."""

from experiments.common.sample import Views
from experiments.concepts.captions import CaptionedImages

CAPTIONS: dict[str, tuple[str, ...]] = {
    "astronaut": (
        "A smiling woman in an orange space suit",
        "An astronaut in front of a flag",
        "Portrait of an astronaut, with a model of a space shuttle behind her",
        "A woman in an orange suit holds a black helmet",
    ),
    "brick wall": (
        "A brick wall in black and white",
        "Rows of bricks with bright mortar",
        "A brick wall that fills the picture",
        "Texture of bricks",
    ),
    "cat": (
        "Close-up of a tabby cat",
        "A brown cat with green eyes",
        "The face of a cat with long whiskers",
        "A striped cat looks into the camera",
    ),
    "Chinese temple": (
        "A Chinese temple above a lake",
        "A tower with green roofs, and trees around it",
        "A temple between trees under a blue sky",
        "View of a lake from a hill, with an old tower",
    ),
    "clock": (
        "A clock that is out of focus",
        "A blurred clock on a gray wall",
        "Something bright and blurred",
        "A moving clock, out of focus",
    ),
    "coffee": (
        "A cup of coffee on a wooden table",
        "Espresso in a brown cup, with a spoon on the saucer",
        "Coffee with a spoon beside it",
        "A brown saucer on a wooden table",
    ),
    "coins": (
        "Old coins in rows, in black and white",
        "A collection of coins on a dark ground",
        "Four rows of Greek coins",
        "Many old coins with heads on them",
    ),
    "dahlia": (
        "An orange flower before dark green leaves",
        "Close-up of an orange flower",
        "A dahlia in bloom",
        "A round flower with many petals, a dahlia",
    ),
    "grass": (
        "Grass, seen from above",
        "A lawn with dry grass and some leaves",
        "Texture of grass",
        "Blades of grass",
    ),
    "gravel": (
        "Gray gravel",
        "Small stones on the ground",
        "Texture of gravel, seen from above",
        "Many small stones",
    ),
    "handwriting": (
        "Handwriting on lined paper",
        "A formula that somebody wrote by hand",
        "Lines of text on paper",
        "Handwriting in black ink",
    ),
    "motorcycle": (
        "A red motorcycle in a garage",
        "A motorcycle on its stand",
        "A red motorcycle before shelves full of boxes",
        "A garage with a bench and a red motorcycle",
    ),
    "photographer": (
        "A man with a camera on a tripod",
        "A photographer in a dark coat, in black and white",
        "A man in a dark coat looks through a camera",
        "A camera on a tripod, on a lawn",
    ),
    "printed page": (
        "A printed page about segmentation",
        "Lines of text on a printed page",
        "A page of a book with some text",
        "Text on paper with a heading",
    ),
    "rocket": (
        "A rocket on the launch pad at night",
        "A white rocket under a dark blue sky",
        "Lights around a rocket at night",
        "A rocket between towers of steel",
    ),
}
"""Photograph -> its captions."""

VIEWS = 18  # of each photograph
TOLD = 3  # captions of each view


def sample_captions() -> CaptionedImages:
    """Views of the photographs, each with some of its photograph's captions: captions do not tell everything."""
    source = Views(list(CAPTIONS), VIEWS, "captions")
    ids, captions = [], []
    for name, told in CAPTIONS.items():
        for view in range(VIEWS):
            ids.append(f"{name}, view {view + 1}")
            captions.append(tuple(told[(view + number) % len(told)] for number in range(TOLD)))
    return CaptionedImages(source, tuple(ids), tuple(captions))
