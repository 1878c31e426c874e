"""Networks that are told their mode in every way, and what they return: an explanation is of inference, or an error."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import camjax
from camjax.attribution.adapters.linen import explain_linen
from camjax.attribution.adapters.nnx import explain_nnx
from camjax.errors import InputError
from camjax.models import CamModel, PooledHead
from camjax.models.inference_mode import inference_view, run_for_inference
from camjax.training import eval_step

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.float32)
IMAGES[1:] *= 0.3  # statistics of one image are far from those of the batch


class Parts(nnx.Module):
    """Convolution, BatchNorm, dropout and a head; how the two are told their mode is up to a subclass."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(4, rngs=rngs)
        self.bn.mean[...], self.bn.var[...] = jnp.arange(4.0), jnp.full(4, 2000.0)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.fc = nnx.Linear(4, 3, rngs=rngs)
        self.training = True

    def run(self, x, train=None):
        told = {"use_running_average": not train}, {"deterministic": not train}
        norm, dropout = ({}, {}) if train is None else told
        return self.fc(self.dropout(nnx.relu(self.bn(self.conv(x), **norm)), **dropout).mean((1, 2)))


class ByAttribute(Parts):
    def __call__(self, x):
        return self.run(x)


class ByArgument(Parts):
    def __call__(self, x, train=True):
        return self.run(x, train=train)


class ByKeyword(Parts):
    def __call__(self, x, *, deterministic):
        return self.run(x, train=not deterministic)


class ByFlag(Parts):
    def __call__(self, x):
        return self.run(x, train=self.training)


class Always(Parts):
    def __call__(self, x):
        return self.run(x, train=True)


@pytest.mark.parametrize("network", [ByAttribute, ByArgument, ByKeyword, ByFlag])
def test_a_network_of_nnx_is_explained_in_inference_mode(network):
    model = network()
    expected = explain_nnx(model, "bn", forward=lambda model, images: model.run(images, train=False))(IMAGES, [0, 1, 2])
    explain = explain_nnx(model, "bn")
    found = explain(IMAGES, [0, 1, 2])
    np.testing.assert_array_equal(found.outputs, expected.outputs)
    np.testing.assert_array_equal(found.maps, expected.maps)
    np.testing.assert_allclose(explain(IMAGES[:1], [0]).maps, found.maps[:1], rtol=1e-5, atol=1e-7)
    assert model.training is True


def test_a_network_that_cannot_be_told_is_an_error():
    with pytest.raises(InputError, match=r"Always does not run in inference mode: it changes bn.mean.*forward="):
        explain_nnx(Always(), "bn")(IMAGES, [0, 1, 2])
    trains = explain_nnx(ByArgument(), "bn", forward=lambda model, images: model(images, train=True))
    with pytest.raises(InputError, match="does not run in inference mode"):
        trains(IMAGES, [0, 1, 2])


class Model(CamModel):
    """A model of camjax whose backbone is told by an argument, which `features` cannot give."""

    def __init__(self):
        super().__init__(input_size=(8, 8), stride=1, mean=(0,) * 3, std=(1,) * 3)
        self.bn = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
        self.head = PooledHead(3, 2, rngs=nnx.Rngs(0))

    def backbone(self, x, train=True):
        return self.bn(x, use_running_average=not train)


class OwnFeatures(Model):
    def features(self, images, train=True):
        return self.backbone(images, train=train)


CALLS = {
    "cam_fn": lambda model: camjax.cam_fn(model, IMAGES).maps,
    "make_cam_fn": lambda model: camjax.make_cam_fn(model)(IMAGES).maps,
    "scorecam": lambda model: camjax.make_cam_fn(model, "scorecam")(IMAGES).maps,
    "explainer": lambda model: camjax.explainer(model.features, model.head)(IMAGES).maps,
    "evaluation": lambda model: eval_step(
        model, {"image": IMAGES, "label": np.zeros(3, int), "mask": np.ones(3, bool)}
    )["loss"],
}


@pytest.mark.parametrize("call", CALLS)
def test_a_model_whose_backbone_is_told_by_an_argument(call):
    with pytest.raises(InputError, match=r"does not run in inference mode: it changes .*(bn.mean|BatchStat)"):
        CALLS[call](Model())


@pytest.mark.parametrize("call", sorted(CALLS.keys() - {"evaluation"}))
def test_a_model_whose_features_are_told_by_an_argument(call):
    class Told(OwnFeatures):
        def backbone(self, x, train=False):
            return self.bn(x, use_running_average=not train)

    np.testing.assert_array_equal(CALLS[call](OwnFeatures()), CALLS[call](Told()))


def test_the_mode_of_a_call_is_not_that_of_the_model():
    model = ByArgument()
    state = [np.asarray(x) for x in jax.tree.leaves(nnx.state(model, nnx.BatchStat))]
    first = run_for_inference(inference_view(model), IMAGES)
    np.testing.assert_array_equal(first, run_for_inference(inference_view(model), IMAGES))
    jax.tree.map(np.testing.assert_array_equal, state, jax.tree.leaves(nnx.state(model, nnx.BatchStat)))


class InLinen(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train, name="bn")(nn.Conv(4, (3, 3))(x))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x).mean((1, 2)))


def test_a_network_of_linen_is_told_by_its_argument():
    variables = InLinen().init(jax.random.key(0), IMAGES, train=False)
    with pytest.raises(InputError, match=r"InLinen does not run in inference mode"):
        explain_linen(InLinen(), variables, "bn", forward=lambda module, images: module(images, train=True))(
            IMAGES, [0] * 3
        )
    told = explain_linen(InLinen(), variables, "bn", forward=lambda module, images: module(images, train=False))
    np.testing.assert_array_equal(
        explain_linen(InLinen(), variables, "bn")(IMAGES, [0, 1, 2]).maps, told(IMAGES, [0, 1, 2]).maps
    )


class Outputs(NamedTuple):
    logits: jax.Array
    hidden: jax.Array


@pytest.mark.parametrize(
    ("wrap", "facts"),
    [
        (lambda x: {"logits": x, "aux": x}, ["dict", "'logits'", "forward=lambda"]),
        (lambda x: (x, x), ["tuple", "forward=lambda"]),
        (lambda x: [x], ["list", "forward=lambda"]),
        (lambda x: Outputs(x, x), ["Outputs", "'logits'", "forward=lambda"]),
        (lambda x: None, ["NoneType"]),
    ],
)
def test_outputs_that_are_no_array_say_how_to_choose_one(wrap, facts):
    class Wrapped(ByAttribute):
        def __call__(self, x):
            return wrap(super().__call__(x))

    with pytest.raises(InputError) as caught:
        explain_nnx(Wrapped(), "bn")(IMAGES, [0, 1, 2])
    assert all(fact in str(caught.value) for fact in facts), caught.value


def test_one_of_several_outputs_is_chosen_by_forward():
    class Wrapped(ByAttribute):
        def __call__(self, x):
            return {"logits": super().__call__(x), "aux": x}

    chosen = explain_nnx(Wrapped(), "bn", forward=lambda model, images: model(images)["logits"])(IMAGES, [0, 1, 2])
    np.testing.assert_array_equal(chosen.maps, explain_nnx(ByAttribute(), "bn")(IMAGES, [0, 1, 2]).maps)


@pytest.mark.parametrize("images", [{"image": IMAGES}, (IMAGES, IMAGES), [IMAGES, IMAGES], None, "cat.jpg"])
def test_images_that_are_no_array(images):
    model = OwnFeatures()
    for call in (
        camjax.explainer(model.features, model.head),
        camjax.make_cam_fn(model),
        explain_nnx(ByAttribute(), "bn"),
    ):
        with pytest.raises(InputError, match=rf"images of type {type(images).__name__}"):
            call(images)


def test_a_network_of_two_inputs_is_explained_for_one():
    """The other is part of `forward`, by a closure."""

    class Two(Parts):
        def __call__(self, x, scale):
            return self.run(x) * scale

    scale = jnp.array([[1.0], [2.0], [3.0]])
    found = explain_nnx(Two(), "bn", forward=lambda model, images: model(images, scale))(IMAGES, [0, 1, 2])
    one = explain_nnx(ByAttribute(), "bn")(IMAGES, [0, 1, 2])
    np.testing.assert_allclose(found.maps, np.maximum(one.maps, 0) * scale[:, :, None, None], rtol=1e-5)


def test_a_single_logit_is_a_probability_by_its_sigmoid():
    logits = np.array([[0.0], [2.0], [-300.0]], np.float32)
    expected = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(camjax.cam.class_probabilities(logits), expected, rtol=1e-6, atol=1e-40)
    np.testing.assert_allclose(camjax.cam.class_probabilities(jnp.asarray(logits)), expected, rtol=1e-6, atol=1e-40)
    two = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(camjax.cam.class_probabilities(two), jax.nn.softmax(two), rtol=1e-6)
