"""Targets: scores computed by hand, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camjax.attribution import output_gradients, targets
from camjax.attribution.targets import as_target

OUTPUTS = jnp.array([[1.0, 2, 4], [0, -3, 5]])


def scores(target, outputs=OUTPUTS) -> list:
    return np.asarray(jax.jit(as_target(target, outputs))(outputs)).tolist()


def test_class_ids():
    assert scores(np.array([2, 1])) == scores(targets.classes([2, 1])) == [[4], [-3]]
    assert scores(np.array([[2, 0], [1, 1]])) == [[4, 1], [-3, -3]]


def test_probabilities_are_the_softmax():
    expected = np.exp([4, -3]) / np.exp(np.asarray(OUTPUTS)).sum(1)
    np.testing.assert_allclose(scores(targets.probabilities([2, 1])), expected[:, None], rtol=1e-5)


def test_the_residual_softmax_adds_the_logarithm_of_the_probability():
    expected = np.array([4, -3]) + np.log(np.exp([4, -3]) / np.exp(np.asarray(OUTPUTS)).sum(1))
    np.testing.assert_allclose(scores(targets.residual_softmax([2, 1])), expected[:, None], rtol=1e-5)


def test_finer_takes_away_the_look_alikes():
    # Of class 0 of the first image class 1 is the closest, of class 2 as well; of class 0 of the second class 1.
    ids = np.array([[0, 2], [0, 1]])
    assert scores(targets.finer(ids, num_similar=1)) == [[1 - 2, 4 - 2], [0 + 3, -3 - 0]]
    assert scores(targets.finer(ids, num_similar=1, strength=0.5)) == [[0, 3], [1.5, -3]]
    assert scores(targets.finer(ids, weights="mean")) == [[1 - 3, 4 - 1.5], [0 - 1, -3 - 2.5]]
    assert scores(targets.finer([0, 0], similar=[2])) == [[1 - 4], [0 - 5]]
    assert scores(targets.finer(ids, similar=[[[1], [0]], [[2], [2]]])) == [[-1, 3], [-5, -8]]
    # A family: each is compared with the others. The softmax of 2 and 4, of 1 and 2, ...
    share = 1 / (1 + np.exp([2, 1, 8, 5]))
    expected = [[1 - (2 * share[0] + 4 * (1 - share[0])), 4 - (share[1] + 2 * (1 - share[1]))]]
    expected += [[0 - (-3 * share[2] + 5 * (1 - share[2])), -3 - (5 - 5 * share[3])]]
    for similar in ([0, 1, 2], None):
        np.testing.assert_allclose(scores(targets.finer(ids, similar=similar)), expected, rtol=1e-5, atol=1e-6)


def test_the_shares_of_look_alikes_have_a_gradient():
    target = targets.finer([[0]], similar=[1, 2], strength=0.5)
    outputs = jnp.array([[1.0, 0.5, -0.5]])

    def by_hand(outputs):
        first, second = jnp.exp(outputs[0, 1]), jnp.exp(outputs[0, 2])
        return outputs[0, 0] - 0.5 * (first * outputs[0, 1] + second * outputs[0, 2]) / (first + second)

    found = jax.jit(jax.grad(lambda outputs: target(outputs).sum()))(outputs)
    np.testing.assert_allclose(found, jax.jit(jax.grad(by_hand))(outputs), atol=1e-6)


def test_traced_look_alikes_that_are_none_give_nan():
    compiled = jax.jit(lambda target: target(OUTPUTS))
    assert np.isnan(compiled(targets.finer([0, 1], similar=[1]))).tolist() == [[False], [True]]
    assert np.isnan(compiled(targets.finer([0, 1], similar=[[2], [3]]))).tolist() == [[False], [True]]


def test_a_set_of_classes_is_their_mean():
    assert scores(targets.class_sets([[True, True, False], [False, True, True]])) == [[1.5], [1]]
    assert scores(targets.class_sets([[[0, 0, 2], [1, 0, 1]]] * 2)) == [[4, 2.5], [5, 2.5]]


def test_binary_and_multi_label():
    assert scores(targets.binary([True, False]), jnp.array([2.0, 3])) == [[2], [-3]]
    assert scores(targets.binary([True, False]), jnp.array([[2.0], [3]])) == [[2], [-3]]
    assert scores(targets.binary([[True, False, True]] * 2)) == [[1, -2, 4], [0, 3, 5]]


def test_regression():
    assert scores(targets.regression(), jnp.array([2.0, 3])) == [[2], [3]]
    assert scores(targets.regression([1, -1, 1])) == [[1, -2, 4], [0, 3, 5]]


def test_the_mean_over_a_region():
    outputs = jnp.arange(2 * 2 * 2 * 3.0).reshape(2, 2, 2, 3)
    masks = np.array([[[1, 0], [0, 1]], [[0, 0], [0, 0]]])
    # Of the first image class 1 has 1, 4, 7, 10 at its four places; the second image's region is empty.
    assert scores(targets.region(masks, [1, 1]), outputs) == [[(1 + 10) / 2], [0]]
    assert scores(targets.region(np.ones((2, 2, 2, 2)), [[0, 2], [2, 0]]), outputs) == [[4.5, 6.5], [18.5, 16.5]]


def test_similarity_is_the_cosine():
    embeddings = np.array([[1.0, 2, 4], [3, 0, 0]])
    np.testing.assert_allclose(scores(targets.similarity(embeddings)), [[1], [0]], atol=1e-6)
    np.testing.assert_allclose(
        scores(targets.similarity(np.stack([embeddings, -embeddings], 1))), [[1, -1], [0, 0]], atol=1e-6
    )
    assert scores(targets.similarity(embeddings), jnp.zeros((2, 3))) == [[0], [0]]


def test_another_target_for_each_image():
    mixed = targets.per_image([targets.classes([2]), targets.class_sets([[1, 1, 0]])])
    assert scores(mixed) == [[4], [-1.5]]
    assert scores(lambda outputs: outputs[:, 1:]) == [[2, 4], [-3, 5]]


@pytest.mark.parametrize(
    "target, message",
    [
        (np.array([1]), r"class_ids of shape \(1,\).* for 2 images"),
        (np.array([[1, 3], [0, 0]]), r"class_ids \[3\] out of range: the model has classes 0\.\.2"),
        (np.array([1.0, 2.0]), "float64 for 2 images"),
        (np.array([[0, 1, 1], [1, 0, 0]]), "zeros and ones for 3 classes: they look like labels"),
        (targets.class_sets([[1, 0, 0]]), r"members of shape \(1, 1, 3\): expected \(2, 1, 3\)"),
        (targets.class_sets(np.ones((2, 4))), r"members of shape \(2, 1, 4\): expected \(2, 1, 3\)"),
        (targets.binary([True, False, True]), r"positive of shape \(3,\): expected \(2, 3\)"),
        (targets.region(np.ones((2, 2, 2)), [1, 1]), r"expected \(B, h, w, C\)"),
        (targets.similarity(np.ones((3, 3))), r"embeddings of shape \(3, 1, 3\): expected \(2, 1, 3\)"),
        (targets.per_image([targets.classes([1])]), "1 targets for 2 images"),
        (targets.finer([0, 1], similar=[[0, 1]]), r"similar of shape \(1, 2\): expected integers \(T,\), \(2, T\)"),
        (targets.finer([0, 1], similar=[0.5]), r"similar of shape \(1,\) and dtype float64: expected integers"),
        (targets.finer([0, 1], similar=[0, 3]), r"similar has \[3\]: expected classes in 0\.\.2"),
        (targets.finer([0, 1], similar=[2, 2]), "expected each class once"),
        (targets.finer([0, 1], similar=[1]), "class 1 has no look-alike but itself"),
        (targets.finer([0, 3]), r"class_ids \[3\] out of range"),
        (lambda outputs: outputs.sum(), r"scores of shape \(\) for 2 images: expected \(2, N\)"),
        (lambda outputs: outputs[:1], r"scores of shape \(1, 3\) for 2 images"),
    ],
)
def test_what_does_not_fit_is_said(target, message):
    with pytest.raises(ValueError, match=message):
        as_target(target, OUTPUTS)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: targets.class_sets([[1, 0, 1], [0, 0, 0]]), "members of image 1 have the sum 0"),
        (lambda: targets.class_sets([[[1, 0, 1], [0, 0, 0]]]), "members of image 0 have the sum 0"),
        (lambda: targets.class_sets([[1, -1, 0]]), "have the sum 0"),
        (lambda: targets.class_sets([[1, np.nan, 0]]), "have the sum nan"),
        (lambda: targets.binary([1, -1]), r"values \[-1, 1\]: .* write positive > 0"),
        (lambda: targets.binary([[0.5, 0]]), r"values \[0\.0, 0\.5\]: expected True and False"),
        (lambda: targets.regression([1, 0]), "expected 1, or -1"),
    ],
)
def test_values_without_a_meaning_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_traced_values_are_not_looked_at():
    traced = jax.jit(lambda members: targets.class_sets(members)(OUTPUTS))
    np.testing.assert_array_equal(traced(np.array([[1, 1, 0], [0, 0, 0]])), [[1.5], [np.nan]])
    assert jax.jit(lambda positive: targets.binary(positive)(OUTPUTS[:, 0]))(np.array([-1, 0])).tolist() == [[1], [0]]
    assert jax.jit(lambda sign: targets.regression(sign)(OUTPUTS[:, 0]))(-1.0).tolist() == [[-1], [0]]


def test_targets_are_arguments_of_a_compiled_program():
    gradients = jax.jit(lambda inputs, target: output_gradients(lambda x: x * x, inputs)[1](target))
    for chosen in (1, 2):
        found = gradients(OUTPUTS, targets.classes(np.array([chosen, 0])))
        expected = np.zeros((2, 1, 3))
        expected[0, 0, chosen], expected[1, 0, 0] = 2 * OUTPUTS[0, chosen], 2 * OUTPUTS[1, 0]
        np.testing.assert_array_equal(found, expected)
    assert gradients._cache_size() == 1


def test_gradients_of_a_tree_of_inputs():
    inputs = (jnp.ones((2, 3)), jnp.full((2, 2, 2), 2.0))
    outputs, gradients = output_gradients(
        lambda pair: jnp.stack([pair[0].sum(1), (pair[1] ** 2).sum((1, 2))], 1), inputs
    )
    assert outputs.tolist() == [[3, 16], [3, 16]]
    first, second = gradients(np.array([[0, 1], [1, 0]]))
    assert first.shape == (2, 2, 3) and second.shape == (2, 2, 2, 2)
    assert np.asarray(first)[:, :, 0].tolist() == [[1, 0], [0, 1]]
    assert np.asarray(second)[:, :, 0, 0].tolist() == [[0, 4], [4, 0]]
