import dataclasses

import pytest

from camjax.errors import InputError, printable, reading
from camjax.json_files import parse_json, read_json


@dataclasses.dataclass
class Part:
    name: str
    sizes: list[int]
    mean: float = 0.5


def test_a_file_of_the_form_is_read(tmp_path):
    path = tmp_path / "part.json"
    path.write_text('{"name": "Möwe", "sizes": [1, 2], "mean": 1, "later": {}}', encoding="utf-8")
    assert read_json(path, Part, advice="") == Part("Möwe", [1, 2], 1.0)


def test_numbers_that_json_does_not_know_are_read_as_python_writes_them():
    found = parse_json("[NaN, Infinity, -Infinity]", list[float], name="", advice="")
    assert found[0] != found[0] and found[1:] == [float("inf"), float("-inf")]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ('{"name": 3, "sizes": []}', ["name is 3", "string"]),
        ('{"name": "a", "sizes": [1, "2"]}', ["sizes.1 is '2'", "integer"]),
        ('{"name": "a", "sizes": [true]}', ["sizes.0 is True", "integer"]),
        ('{"name": "a"}', ["sizes is missing"]),
        ('{"sizes": 1, "mean": "x"}', ["name is missing", "sizes is 1", "mean is 'x'"]),
        ("[]", ["the content is []"]),
        ("", ["EOF"]),
        ("[" * 100_000, ["recursion limit"]),
        ('{"name": "a", "sizes": [' + "9" * 5000 + "]}", ["out of range"]),
        (b'{"name": "\xff"}', ["unicode"]),
        ('{"name": 1, "sizes": ["a", "b", "c", "d"]}', ["name is 1", "and 2 more"]),
    ],
)
def test_another_form_is_an_error_with_file_field_and_advice(tmp_path, text, facts):
    path = tmp_path / "part.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        read_json(path, Part, advice="Write it again.")
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith("Write it again.") and "\n" not in message
    assert all(fact in message for fact in facts), message
    assert len(message) < 1000


def test_a_missing_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", Part, advice="")


def test_printable_has_no_control_characters():
    assert printable("a\x1b[31m\r\nb\x00\u202ec é") == "a [31m  b  c é"
    assert len(printable("x" * 10_000)) <= 200 and len(printable("y " * 10_000)) <= 200


def test_reading_turns_a_library_error_into_one_of_camjax():
    told = r"f.npy is not an array, or damaged \(KeyError: 'x'\). Delete it."
    with pytest.raises(InputError, match=told), reading("f.npy", "an array", "Delete it."):
        raise KeyError("x")
    with pytest.raises(InputError, match="OSError: of Pillow"), reading("f.png", "an image", "Delete it."):
        raise OSError("of Pillow")  # without an error number


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), InputError("known"), MemoryError()])
def test_reading_lets_pass_what_is_not_about_the_content(error):
    with pytest.raises(type(error)) as caught, reading("f.npy", "an array", "Delete it."):
        raise error
    assert caught.value is error
