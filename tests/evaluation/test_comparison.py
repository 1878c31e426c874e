import functools

import jax
import numpy as np
import pytest
from flax import nnx

import camjax
from camjax.evaluation.comparison import compare_methods
from camjax.evaluation.methods import make_method

pytestmark = pytest.mark.usefixtures("quick_programs")

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


@functools.cache
def network():
    model = camjax.create_model("small_gap", rngs=nnx.Rngs(0))
    model.eval()
    return model


def test_each_method_is_found_under_its_own_name_as_when_it_is_alone():
    names = ["hirescam", "cam", "ablationcam", "backprop", "gradcam"]  # in no alphabetical order
    seen = []
    found = compare_methods(
        network(), names, IMAGES, np.array([[3], [7]]), threshold=0.4, progress=lambda *at: seen.append(at)
    )
    assert list(found) == names
    for name in ("hirescam", "ablationcam", "backprop"):
        alone = make_method(network(), name, threshold=0.4, top_k=1)(IMAGES, np.array([3, 7]))
        for field, expected in zip(jax.device_get(found[name]), jax.device_get(alone), strict=True):
            np.testing.assert_allclose(field, expected, atol=1e-4 * np.abs(expected).max(), err_msg=name)
    np.testing.assert_array_equal(found["cam"].class_ids[:, 1], [3, 7])
    cam, cells = jax.device_get(found["cam"].maps), 4 * 4
    assert cam.shape == (2, 2, 4, 4)
    np.testing.assert_allclose(found["gradcam"].maps, np.maximum(cam, 0) / cells, atol=1e-5)
    assert {name for name, *_ in seen} == {"ablationcam"}


@pytest.mark.parametrize(
    "names, options, message",
    [
        ([], {}, "expected at least one"),
        (["cam", "cam"], {}, "each once"),
        (["cam", "magic"], {}, "magic: expected some of cam, cam_ten_crop"),
        (["cam", "cam_ten_crop"], {}, "cam takes 64 x 64, cam_ten_crop takes 72 x 72"),
        (["cam"], {"top_k": 11}, "top_k=11"),
        (["cam"], {"threshold": 1}, "threshold=1"),
    ],
)
def test_wrong_arguments(names, options, message):
    with pytest.raises(ValueError, match=message):
        compare_methods(network(), names, IMAGES, **options)
