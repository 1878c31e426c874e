"""Real photographs and encoders, for the tests of decoding and loading."""

import io
from importlib.resources import files

import numpy as np
from PIL import ExifTags, Image

PHOTOS = [
    files("sklearn.datasets") / "images" / "china.jpg",
    files("sklearn.datasets") / "images" / "flower.jpg",
    files("skimage") / "data" / "rocket.jpg",
]
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def encode(image, kind, **options):
    """The bytes of a Pillow image or array saved in a format."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image))
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(width=64, height=48):
    """A real photograph, small, without profiles or tags."""
    return Image.fromarray(np.asarray(Image.open(str(PHOTOS[0])).resize((width, height))))


def with_orientation(value):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif
