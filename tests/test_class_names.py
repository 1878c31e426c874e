import numpy as np
import pytest

from camjax.class_names import class_id, imagenet_class_names, match_class_names
from camjax.errors import InputError

IMAGENET = imagenet_class_names()


def match(of_data, of_model, num_classes=None):
    return match_class_names(of_data, of_model, num_classes or len(of_model), data="birds").tolist()


@pytest.mark.parametrize(
    ("of_data", "of_model", "ids"),
    [
        (["Cat", "Dog"], ["dog", "cat"], [1, 0]),
        (["cat"], ["dog", "cat"], [1]),
        (["great_grey-owl"], ["barn owl", "Great Grey Owl"], [1]),
        (["1", "0"], ["dog", "cat"], [1, 0]),
        (["7", "3"], ["3", "7"], [1, 0]),  # a name comes before an id
        (["Cafe\u0301"], ["tea", "Caf\u00e9"], [1]),
        (["tabby", "Egyptian cat"], IMAGENET, [281, 285]),
        (["tabby_cat"], IMAGENET, [281]),
        (["n02123045", "n01440764"], IMAGENET, [281, 0]),
        (["n02123045-tabby", "n01440764_tench"], IMAGENET, [281, 0]),
        (["n02123045", "n01440764"], IMAGENET[:1] + IMAGENET[281:282], [1, 0]),  # a model of some of these classes
        (["n02123045-tabby"], ["tench", "tabby"], [1]),
        (["tabby cat", "tench"], ["n01440764", "n02123045"], [1, 0]),
        (["n09999999-x"], ["n09999999"], [0]),  # of WordNet, not of these classes
        (["tench, Tinca tinca"], ["goldfish", "tench"], [1]),
        (["134", "517"], IMAGENET, [134, 517]),
        (["n02012849", "n03126707"], IMAGENET, [134, 517]),
        (IMAGENET, IMAGENET, list(range(1000))),
    ],
)
def test_classes_are_found_by_name(of_data, of_model, ids):
    assert match(of_data, of_model) == ids


def test_without_names_of_the_model_classes_are_paired_in_order():
    assert match(["b", "a"], None, 2) == [0, 1]
    with pytest.warns(UserWarning, match="birds has 2 classes, whose names are numbers: .* model's 5 classes"):
        assert match(["4", "1"], None, 5) == [4, 1]
    with pytest.raises(InputError, match="birds has 2 classes, and the model 3"):
        match(["b", "a"], None, 3)
    with pytest.raises(InputError, match="birds has 2 classes, and the model 3"):
        match(["1", "3"], None, 3)


@pytest.mark.parametrize(
    ("of_data", "of_model", "facts"),
    [
        (["crane"], IMAGENET, ["134 is 'crane' (n02012849)", "517 is 'crane' (n03126707)", "WordNet id"]),
        (["missile"], ["rocket, missile", "missile, dart"], ["0 is 'rocket, missile'", "1 is 'missile, dart'"]),
        (["cow", "cat"], ["dog", "cat"], ["'cow'", "'dog', 'cat'", "Rename"]),
        (["tabbi"], IMAGENET, ["'tabbi'", "Did you mean 'tabby'"]),
        (["n00000001"], IMAGENET, ["n00000001"]),
        (["n02123045"], ["dog", "cat"], ["n02123045"]),
        (["n02012849"], ["crane", "cat"], ["n02012849"]),  # the bird, and who knows which the model means
        (["cat, dog"], ["dog", "cat"], ["0 is 'dog'", "1 is 'cat'"]),
        (["1000"], IMAGENET, ["'1000'"]),
        (["Cat", "cat"], ["dog", "cat"], ["'Cat', 'cat'", "1 is 'cat'"]),
        ([f"no {i}" for i in range(9)], ["dog", "cat"], ["'no 4' and 4 more"]),
    ],
)
def test_what_cannot_be_matched_is_listed(of_data, of_model, facts):
    with pytest.raises(InputError) as caught:
        match(of_data, of_model)
    assert str(caught.value).startswith("birds has") and all(fact in str(caught.value) for fact in facts), caught.value


def test_one_class_that_a_user_types():
    assert class_id("TABBY", IMAGENET) == 281
    with pytest.raises(InputError, match=r"'crane' names 2 classes: 134 .*517"):
        class_id("crane", IMAGENET)
    with pytest.raises(InputError, match=r"'tabbi': no class .* Did you mean 'tabby'"):
        class_id("tabbi", IMAGENET)


def test_imagenet_ids_are_in_the_order_of_tfds():
    from importlib.resources import files

    ids = (files("tensorflow_datasets") / "datasets/imagenet2012/labels.txt").read_text().split()
    assert match(ids, IMAGENET) == np.arange(1000).tolist()
