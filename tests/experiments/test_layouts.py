"""What is said of a folder that is not the data set's."""

import pytest

from experiments.common.layouts import check_layout, missing_layout

TREE = """
    Images/
      bedroom/
        a.jpg
    TrainImages.txt
"""
WHERE = "Fetch it from http://example.org, and give its folder as --indoor."


def test_the_tree_is_shown_as_it_is_written(tmp_path):
    error = missing_layout(tmp_path / "indoor", TREE, WHERE)
    assert str(error).splitlines() == [
        f"{tmp_path}/indoor is not there. Expected:",
        f"  {tmp_path}/indoor/",
        "    Images/",
        "      bedroom/",
        "        a.jpg",
        "    TrainImages.txt",
        WHERE,
    ]


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (["a"], "ROOT/a is not there."),
        (["a", "b/c"], "ROOT/a, ROOT/b/c are not there."),
        (list("abcde"), "ROOT/a, ROOT/b, ROOT/c and 2 others are not there."),
    ],
)
def test_what_is_missing_is_named(tmp_path, missing, expected):
    (tmp_path / "x").write_text("")
    with pytest.raises(FileNotFoundError) as caught:
        check_layout(tmp_path, ["x", *missing], TREE, WHERE)
    assert str(caught.value).startswith(expected.replace("ROOT", str(tmp_path)))


def test_a_folder_that_is_complete_passes(tmp_path):
    (tmp_path / "Images").mkdir()
    (tmp_path / "TrainImages.txt").write_text("")
    check_layout(tmp_path, ["Images", "TrainImages.txt"], TREE, WHERE)
    with pytest.raises(FileNotFoundError, match=r"TrainImages\.txt is not there"):
        check_layout(tmp_path / "TrainImages.txt", [], TREE, WHERE)
