"""ROAD: its linear imputation against a dense solver, and its scores against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camjax.metrics import linear_imputation, road

WEIGHTS = {(dy, dx): 1 / 6 if dy == 0 or dx == 0 else 1 / 12 for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx}


def system(image, missing):
    """The equations of the missing pixels: matrix (n, n) as entries, and right-hand side (n, C)."""
    places = np.argwhere(missing)
    number = {tuple(place): i for i, place in enumerate(places)}
    entries, right = {}, np.zeros((len(places), image.shape[-1]))
    for i, (y, x) in enumerate(places):
        for (dy, dx), weight in WEIGHTS.items():
            neighbor = (y + dy, x + dx)
            if not (0 <= neighbor[0] < missing.shape[0] and 0 <= neighbor[1] < missing.shape[1]):
                continue
            entries[i, i] = entries.get((i, i), 0) + weight
            if neighbor in number:
                entries[i, number[neighbor]] = -weight
            else:
                right[i] += weight * image[neighbor]
    return entries, right


def dense_imputation(image, missing):
    entries, right = system(image, missing)
    matrix = np.zeros((len(right), len(right)))
    for place, value in entries.items():
        matrix[place] = value
    filled = image.astype(np.float64).copy()
    filled[missing] = np.linalg.solve(matrix, right)
    return filled


def random_image(size, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (*size, 3))


def test_imputation_equals_a_dense_solve():
    size = (9, 13)
    image = random_image(size)
    order = np.random.default_rng(1).permutation(image[..., 0].size).reshape(size)
    scattered = [order < share * order.size for share in (0.1, 0.5, 0.9)]
    y, x = np.mgrid[: size[0], : size[1]]
    holes = [(y > 1) & (x < 7), y + x > 0, (y < size[0] - 1), (y == 3) & (x == 0), np.zeros(size, bool)]
    masks = np.array(scattered + holes)
    filled = linear_imputation(np.repeat(image[None], len(masks), axis=0), masks)
    for found, missing in zip(filled, masks, strict=True):
        np.testing.assert_allclose(found, dense_imputation(image, missing), atol=0.01)
        np.testing.assert_array_equal(found[~missing], image.astype(np.float32)[~missing])


SIZE = (40, 36)  # of one compiled program for several tests


def test_a_wide_hole_equals_a_dense_solve():
    image = random_image(SIZE).astype(np.float32)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    missing = (y - 20) ** 2 / 300 + (x - 17) ** 2 / 200 < 1
    assert missing.sum() > 700
    np.testing.assert_allclose(
        linear_imputation(image[None], missing[None])[0], dense_imputation(image, missing), atol=0.01
    )


def test_a_slope_is_its_own_imputation():
    # Each pixel of a plane is the mean of its neighbors: a hole inside is filled without a trace.
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    plane = np.stack([3 * y + 2 * x, 210 - 5 * y, np.full_like(y, 77)], axis=-1).astype(np.float32)
    missing = (y > 2) & (y < 37) & (x > 3) & (x < 20)
    np.testing.assert_allclose(linear_imputation(plane[None], missing[None])[0], plane, atol=0.01)


def test_missing_pixels_are_not_looked_at():
    image = random_image(SIZE).astype(np.float32)
    missing = np.zeros(SIZE, bool)
    missing[2:5, 3:7] = True
    other = np.where(missing[..., None], 9999, image)
    np.testing.assert_array_equal(
        linear_imputation(image[None], missing[None]), linear_imputation(other[None], missing[None])
    )


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"expected \(B, H, W, C\) and \(B, H, W\)"):
        linear_imputation(np.zeros((1, 8, 8, 3)), np.zeros((8, 8), bool))


# Scores


@jax.jit
def red_and_blue(images):
    """A score for what the corners' colors are, which only imputation can change."""
    y = jnp.linspace(0, 1, images.shape[1])[:, None]
    return jnp.stack([(images[..., 0] * y).mean((1, 2)), images[..., 2].max((1, 2))], axis=1)


def test_scores_equal_a_plain_loop():
    images = np.stack([random_image((6, 7), seed) for seed in (2, 3)]).astype(np.float32)
    maps = np.random.default_rng(4).normal(size=(2, 6, 7)).astype(np.float32)
    maps[1] = np.round(maps[1])  # with equal values, which raster order decides
    fractions, ids = (0.1, 0.5, 0.9), [0, 1]
    found = road(red_and_blue, images, maps, ids, fractions=fractions, noise=0, chunk_size=5)
    expected = np.zeros((2, 2, 3))
    for i in range(2):
        for j, sign in enumerate((-1, 1)):
            order = np.argsort(sign * maps[i].ravel(), kind="stable")
            for k, fraction in enumerate(fractions):
                missing = np.zeros(42, bool)
                missing[order[: int(np.ceil(fraction * 42))]] = True
                filled = dense_imputation(images[i], missing.reshape(6, 7))
                expected[i, j, k] = red_and_blue(filled[None].astype(np.float32))[0, ids[i]]
    np.testing.assert_allclose(found.most_relevant_first, expected[:, 0], atol=0.01)
    np.testing.assert_allclose(found.least_relevant_first, expected[:, 1], atol=0.01)
    np.testing.assert_allclose(found.combined, (expected[:, 1] - expected[:, 0]).mean(1) / 2, atol=0.01)


def variance(images):
    return images.var((1, 2, 3))[:, None]


def test_noise_is_on_imputed_pixels_alone_and_the_same_in_any_row():
    images, maps = np.full((2, 32, 32, 3), 100.0), np.random.default_rng(5).normal(size=(2, 32, 32))
    options = {"fractions": (0.25, 0.5), "noise": 4.0}
    found = road(variance, images, maps, [0, 0], **options)
    for scores in (found.most_relevant_first, found.least_relevant_first):
        np.testing.assert_allclose(scores, [[4, 8]] * 2, rtol=0.15)  # 16 on a share of the pixels
    swapped = road(variance, images, maps[::-1], [0, 0], **options)
    np.testing.assert_allclose(swapped.most_relevant_first, found.most_relevant_first[::-1], rtol=1e-5)
    other = road(variance, images, maps, [0, 0], **options, key=jax.random.key(1))
    assert (np.asarray(other.most_relevant_first) != np.asarray(found.most_relevant_first)).all()


@pytest.mark.parametrize("fractions", [(), (0.0,), (1.0,), (0.5, -0.1), (0.999,)])
def test_fractions_that_leave_no_pixel_or_take_none(fractions):
    with pytest.raises(ValueError, match="expected shares above 0 and below 1"):
        road(variance, np.ones((1, 6, 7, 3), np.uint8), np.ones((1, 6, 7)), [0], fractions=fractions)


def test_noise_below_zero():
    with pytest.raises(ValueError, match="expected a standard deviation"):
        road(variance, np.ones((1, 6, 7, 3), np.uint8), np.ones((1, 6, 7)), [0], noise=-1)
