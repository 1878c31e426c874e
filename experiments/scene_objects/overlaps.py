"""The objects in the high region of a place's map: the region, an object's share in it, and counts over images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np


class ObjectCount(NamedTuple):
    """An object in the images of a place.

    Attributes:
      id: of the object.
      images: that have it.
      overlapping: those of them where it overlaps the region.
    """

    id: int
    images: int
    overlapping: int

    @property
    def share(self) -> float:
        """The share of the images with the object in which it overlaps the region, in 0..1."""
        return self.overlapping / self.images


def high_region(map: np.ndarray, size: tuple[int, int], threshold: float) -> np.ndarray:
    """Where a map, resized to its image (bilinear, half-pixel centers), is above a share of its maximum.

    Args:
      map: (h, w) raw.
      size: (H, W) of the image.
      threshold: the share, in 0..1; 0.2 in the paper's rule for boxes (section 3.2).

    Returns:
      (H, W) bool; False everywhere for a map whose maximum is not positive, or that is not finite.
    """
    # OpenCV's, which has the same centers as camjax.resize_map and does not compile a program for each size.
    map = cv2.resize(np.asarray(map, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    maximum = map.max()
    return (map > threshold * maximum) & bool(maximum > 0 and np.isfinite(map).all())


def shares_in_region(region: np.ndarray, label_map: np.ndarray) -> dict[int, float]:
    """The share of each object that lies in a region.

    Args:
      region: (H, W) bool.
      label_map: (H, W) integers, 0 where there is no object.

    Returns:
      Id of each object that the label map has -> pixels of it in the region / pixels of it, in 0..1.
    """
    ids, which = np.unique(label_map, return_inverse=True)
    pixels = np.bincount(which.ravel(), minlength=len(ids))
    inside = np.bincount(which.ravel(), weights=region.ravel(), minlength=len(ids))
    return {int(number): float(part / all) for number, part, all in zip(ids, inside, pixels, strict=True) if number}


@dataclass
class PlaceCounts:
    """Counts over the images of a place.

    Attributes:
      images: counted so far.
      without_region: images whose map has no region; their objects overlap nothing.
      present: id -> images that have the object.
      overlapping: id -> images where it overlaps the region.
    """

    images: int = 0
    without_region: int = 0
    present: dict[int, int] = field(default_factory=dict)
    overlapping: dict[int, int] = field(default_factory=dict)

    def add(self, region: np.ndarray, label_map: np.ndarray, least_share: float) -> None:
        """Counts an image; an object overlaps the region where at least `least_share` of its pixels lie in it."""
        self.images += 1
        self.without_region += not region.any()
        for number, share in shares_in_region(region, label_map).items():
            self.present[number] = self.present.get(number, 0) + 1
            self.overlapping[number] = self.overlapping.get(number, 0) + (share >= least_share)

    def _counts(self) -> list[ObjectCount]:
        return [ObjectCount(number, images, self.overlapping[number]) for number, images in self.present.items()]

    def frequent(self, number: int) -> list[ObjectCount]:
        """The objects that most images have; equally frequent ones by id."""
        return sorted(self._counts(), key=lambda count: (-count.images, count.id))[:number]

    def informative(self, number: int, least_frequency: float) -> list[ObjectCount]:
        """The objects that most often overlap the region, as a share of the images that have them.

        Args:
          number: most objects; those that never overlap the region are left out.
          least_frequency: least share of the place's images that have the object, in 0..1: for an object in only two
            images, two are all.

        Returns:
          By falling share; equal shares by falling number of images, then by id.
        """
        ranked = [
            count for count in self._counts() if count.overlapping and count.images >= least_frequency * self.images
        ]
        return sorted(ranked, key=lambda count: (-count.share, -count.images, count.id))[:number]


def to_json(counts: Sequence[ObjectCount], images: int, names: Mapping[int, str]) -> list[dict]:
    """Counts in JSON's types: object (name or id), frequency (share of the `images` that have it), share."""
    return [
        {
            "object": names.get(count.id, f"object {count.id}"),
            "id": count.id,
            "images": count.images,
            "overlapping": count.overlapping,
            "frequency": count.images / images,
            "share": count.share,
        }
        for count in counts
    ]
