"""The random crops beside torchvision's, from the same draws."""

import numpy as np
import pytest
from conftest import photos

from camjax.data.transforms import random_resized_crop, resize_then_random_crop

pytestmark = pytest.mark.parity


class TorchDraws:
    """Draws from PyTorch's global generator, as torchvision makes them."""

    def uniform(self, low, high):
        import torch

        return torch.empty(1).uniform_(low, high).item()

    def integers(self, room):
        import torch

        return torch.randint(0, room, size=(1,)).item()


@pytest.fixture
def transforms():
    pytest.importorskip("torch")
    from benchmarks.peers import import_torchvision

    return import_torchvision().transforms


@pytest.mark.parametrize("image_size", [(375, 500), (500, 333), (64, 64), (20, 300), (300, 20)])
@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 0.9), (0.2, 3.0))])
def test_the_same_draws_give_the_same_crop(transforms, image_size, scale, ratio):
    import torch

    crop, image = random_resized_crop(224, scale=scale, ratio=ratio), torch.zeros(3, *image_size)
    torch.manual_seed(0)
    theirs = [transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(500)]
    torch.manual_seed(0)
    assert [crop.draw(image_size, TorchDraws()) for _ in range(500)] == theirs


def test_a_random_crop_has_nearly_the_same_pixels(transforms):
    import torch
    from PIL import Image

    image = photos((375, 500))[1]
    crop, other = random_resized_crop(224), transforms.RandomResizedCrop(224)
    errors = []
    for seed in range(40):
        torch.manual_seed(seed)
        theirs = np.asarray(other(Image.fromarray(image)), float)
        torch.manual_seed(seed)
        errors.append(crop(image, TorchDraws()) - theirs)
    assert np.sqrt(np.mean(np.square(errors))) < 1.5
    assert abs(np.mean(errors)) < 0.1


def test_squash_then_crop_has_the_same_pixels(transforms):
    import torch
    from PIL import Image

    image = photos((375, 500))[0]
    crop, other = (
        resize_then_random_crop(),
        transforms.Compose([transforms.Resize((256, 256)), transforms.RandomCrop(224)]),
    )
    for seed in range(20):
        torch.manual_seed(seed)
        theirs = np.asarray(other(Image.fromarray(image)))
        torch.manual_seed(seed)
        np.testing.assert_array_equal(crop(image, TorchDraws()), theirs)
