"""The objects in a few of the sample photographs, outlined by hand.

Outlines are rough: like the photographs (`experiments.common.sample`) they are for trials without a data set.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from experiments.common.sample import SampleImages, part_of_image, photograph, random_part

Outline = str | tuple[int, int, int, int]
"""A polygon "x,y x,y ...", as in SVG, or an ellipse (x, y, semi-axis across, semi-axis down), in pixels."""

_PLACES: dict[str, tuple[str, tuple[tuple[str, Outline], ...]]] = {
    "coffee": (
        "coffee break",
        (
            ("table", "0,95 120,0 600,0 600,400 0,400"),
            ("saucer", (278, 232, 202, 156)),
            ("cup", "173,110 178,180 200,235 195,300 225,308 255,262 275,285 320,280 370,245 395,190 404,110 260,60"),
            ("cup", (288, 110, 116, 96)),
            ("coffee", (287, 150, 83, 46)),
            ("spoon", (366, 287, 41, 40)),
            ("spoon", "376,260 383,210 400,68 424,68 405,160 394,215 402,265"),
        ),
    ),
    "Chinese temple": (
        "lakeside temple",
        (
            ("sky", "0,0 640,0 640,215 0,215"),
            ("water", "0,225 330,235 640,215 640,330 0,330"),
            (
                "tree",
                "0,150 30,190 70,215 75,240 50,270 40,310 80,340 160,345 210,370 300,375 340,350 375,330 400,320 "
                "450,300 500,290 545,275 560,205 580,170 600,135 622,150 640,155 640,427 0,427",
            ),
            (
                "temple",
                "196,30 214,30 218,60 265,97 320,115 318,130 296,140 296,158 330,170 328,185 320,195 322,228 350,248 "
                "345,265 342,300 350,320 372,335 330,375 300,390 210,385 160,350 78,340 78,320 84,282 64,270 72,255 "
                "95,245 100,195 86,182 98,165 120,158 120,138 96,130 98,105 150,97 196,60",
            ),
        ),
    ),
    "motorcycle": (
        "garage",
        (
            ("wall", "0,0 741,0 741,310 0,310"),
            ("floor", "0,250 55,300 130,270 360,270 500,287 741,287 741,500 0,500"),
            ("shelf", "342,0 722,0 700,290 500,287 380,260 340,190"),
            ("bench", "52,112 280,105 285,160 230,195 130,205 60,305 48,305"),
            (
                "motorcycle",
                "95,200 145,150 165,160 260,190 350,190 365,160 440,130 465,140 470,125 500,100 515,40 545,100 585,125 "
                "565,185 560,200 575,265 640,290 683,370 680,430 640,452 590,440 540,390 505,330 520,280 495,220 "
                "480,250 475,310 440,375 345,380 340,437 320,435 325,375 270,365 230,400 180,395 135,350 122,300 "
                "125,245 95,235",
            ),
        ),
    ),
    "rocket": (
        "launch pad",
        (
            ("sky", "0,0 640,0 640,427 0,427"),
            ("tower", "50,0 88,0 76,427 0,427 0,395"),
            ("tower", "198,122 203,122 203,380 168,380 188,192 198,190"),
            ("tower", "444,123 449,123 450,190 460,192 476,390 450,400 440,200"),
            ("tower", "560,0 600,0 640,190 640,427 578,427"),
            ("platform", "268,407 375,407 375,427 268,427"),
            ("rocket", "310,150 322,126 334,150 336,200 333,405 313,405 309,200"),
            ("light", (150, 377, 18, 18)),
            ("light", (193, 395, 18, 18)),
            ("light", (110, 415, 14, 12)),
            ("light", (363, 397, 18, 18)),
            ("light", (434, 395, 15, 15)),
            ("light", (450, 418, 12, 9)),
            ("light", (83, 349, 9, 9)),
        ),
    ),
    "photographer": (
        "park",
        (
            ("sky", "0,0 512,0 512,235 0,235"),
            ("building", "0,185 50,178 50,235 0,235"),
            (
                "building",
                "240,188 330,172 345,166 395,176 412,190 412,125 434,125 434,190 452,190 452,165 470,165 472,180 "
                "495,180 512,190 512,235 240,235",
            ),
            ("grass", "0,235 512,235 512,512 0,512"),
            (
                "tripod",
                "288,190 300,190 300,312 330,300 337,306 312,325 405,512 390,512 305,345 300,486 288,486 288,345 "
                "243,512 230,512 278,322 288,312",
            ),
            (
                "person",
                "0,265 20,220 60,165 110,125 158,108 175,80 205,65 245,75 270,110 270,130 255,150 250,190 240,205 "
                "272,205 310,175 328,170 331,190 305,235 300,285 250,312 205,298 140,395 150,512 85,512 100,420 "
                "80,512 0,512",
            ),
            ("camera", "260,150 280,142 325,140 326,152 318,178 298,188 275,185 262,178"),
        ),
    ),
}
"""Photograph -> the place that it shows, and its objects from back to front."""

PLACES = tuple(place for place, _ in _PLACES.values())
"""The places, in the order of their labels."""

OBJECTS: dict[int, str] = dict(
    enumerate(sorted({name for _, objects in _PLACES.values() for name, _ in objects}), start=1)
)
"""Id -> object; 0 is for pixels outside all outlines."""


def label_map(name: str) -> np.ndarray:
    """The objects of an outlined photograph: (H, W) uint8, ids of `OBJECTS`, 0 elsewhere."""
    ids = {object_name: number for number, object_name in OBJECTS.items()}
    labels = np.zeros(photograph(name).shape[:2], np.uint8)
    for object_name, outline in _PLACES[name][1]:
        if isinstance(outline, str):
            corners = np.array([corner.split(",") for corner in outline.split()], np.int32)
            cv2.fillPoly(labels, [corners], ids[object_name])
        else:
            x, y, across, down = outline
            cv2.ellipse(labels, (x, y), (across, down), 0, 0, 360, ids[object_name], thickness=-1)
    return labels


class PlaceViews(SampleImages):
    """Random views of the outlined photographs: half to all of their height and width, mirrored or not.

    Args:
      count: views of each photograph.
    """

    def __init__(self, count: int):
        images, self._label_maps = [], []
        for name in _PLACES:
            rng, pixels, objects = np.random.default_rng([*name.encode()]), photograph(name), label_map(name)
            for _ in range(count):
                part, mirrored = random_part(rng), rng.random() < 0.5
                image = part_of_image(pixels, part)
                labels = part_of_labels(objects, part, image.shape[:2])
                images.append(image[:, ::-1] if mirrored else image)
                self._label_maps.append(labels[:, ::-1] if mirrored else labels)
        super().__init__(images, np.repeat(np.arange(len(PLACES)), count), PLACES, "all")

    def label_map(self, index: int) -> np.ndarray:
        """The objects of a view: (H, W) uint8 of its size, ids of `OBJECTS`, 0 elsewhere."""
        return self._label_maps[index]


def part_of_labels(labels: np.ndarray, part: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """The same part of a label map (H, W): at each pixel of the view the label that its center lies in."""
    rows, columns = (
        ((low + (np.arange(pixels) + 0.5) / pixels * (high - low)) * side).astype(int).clip(0, side - 1)
        for low, high, pixels, side in zip(part[:2], part[2:], size, labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]
