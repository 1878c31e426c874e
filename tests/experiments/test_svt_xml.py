"""The XML of Street View Text, in the layout of its files."""

import numpy as np
import pytest

from experiments.text_detector.svt_xml import MAX_BYTES, parse_svt_xml, read_svt_xml


def svt_image(*rectangles, name="img/14_03.jpg", size=(1280, 880)) -> str:
    """An image as the data set lists it; rectangles (word, x, y, width, height)."""
    tagged = "".join(
        f"""      <taggedRectangle height="{height}" width="{width}" x="{x}" y="{y}">
        <tag>{word}</tag>
      </taggedRectangle>
"""
        for word, x, y, width, height in rectangles
    )
    return f"""  <image>
    <imageName>{name}</imageName>
    <address>341 Southwest 10th Avenue Portland OR</address>
    <lex>
    LIVING,ROOM,THEATERS,KENNY,ZUKE
    </lex>
    <Resolution x="{size[0]}" y="{size[1]}"/>
    <taggedRectangles>
{tagged}    </taggedRectangles>
  </image>
"""


def svt_xml(*images: str) -> bytes:
    return ('<?xml version="1.0" encoding="utf-8"?>\n<tagset>\n' + "".join(images) + "</tagset>\n").encode()


LIVING, ROOM = ("LIVING", 375, 253, 236, 75), ("ROOM", 639, 272, 175, 76)


def test_images_with_their_words_in_order(tmp_path):
    path = tmp_path / "train.xml"
    path.write_bytes(svt_xml(svt_image(LIVING, ROOM), svt_image(name="img/02_01.jpg", size=(640, 480))))
    first, second = read_svt_xml(path)
    assert (first.name, first.size, first.words) == ("img/14_03.jpg", (880, 1280), ("LIVING", "ROOM"))
    # Rows 253 up to 253 + 75, columns 375 up to 375 + 236.
    expected = [[253 / 880, 375 / 1280, 328 / 880, 611 / 1280], [272 / 880, 639 / 1280, 348 / 880, 814 / 1280]]
    np.testing.assert_array_equal(first.boxes, np.float32(expected))
    assert (second.name, second.size, second.words, second.boxes.shape) == ("img/02_01.jpg", (480, 640), (), (0, 4))


def test_a_rectangle_over_the_edge_is_cut():
    (image,) = parse_svt_xml(svt_xml(svt_image(("A", -10, 5, 30, 20), ("B", 90, 40, 30, 20), size=(100, 50))), "x.xml")
    expected = [[0.1, 0, 0.5, 0.2], [0.8, 0.9, 1, 1]]
    np.testing.assert_allclose(image.boxes, expected, rtol=1e-6)


BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE tagset [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>
<tagset><image><imageName>&b;</imageName></image></tagset>"""
ONE = svt_xml(svt_image(LIVING))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (BOMB, "declares a document type"),
        (b'<!DOCTYPE tagset SYSTEM "file:///etc/passwd"><tagset/>', "declares a document type"),
        (b"", "cannot be read as XML: no element found"),
        (ONE[:300], "cannot be read as XML"),
        (b'<?xml version="1.0" encoding="no-such"?><tagset/>', "cannot be read as XML"),
        (b" " * (MAX_BYTES + 1), f"larger than {MAX_BYTES} bytes"),
        (b"<annotation/>", "holds <annotation>: expected <tagset>"),
        (b"<tagset/>", "has no images"),
        (svt_xml(svt_image(), svt_image()), "has 'img/14_03.jpg' twice"),
        (ONE.replace(b"imageName", b"name"), "image 1 has no <imageName>"),
        (ONE.replace(b"Resolution", b"resolution"), r"image 1 \(img/14_03.jpg\) has no <Resolution>"),
        (ONE.replace(b' y="880"', b""), "y of <Resolution> is nothing: expected a number"),
        (svt_xml(svt_image(size=(0, 5))), "has 0 x 5 pixels"),
        (svt_xml(svt_image(size=("nan", 5))), "has nan x 5 pixels"),
        (svt_xml(svt_image(LIVING, ("A", "left", 1, 2, 3))), "rectangle 2: x is 'left'"),
        (
            svt_xml(svt_image(("A", 1, 1, 0, 3))),
            r"rectangle 1 is 0 x 3 pixels at \(1, 1\): expected one with an extent",
        ),
        (svt_xml(svt_image(("A", "inf", 1, 2, 3))), "expected one with an extent"),
        (svt_xml(svt_image(("A", 1280, 1, 2, 3))), "lies outside of the image of 1280 x 880"),
        (svt_xml(svt_image(("A", 1, -3, 2, 3))), "lies outside"),
    ],
)
def test_what_is_no_such_file_is_an_error_that_names_it(data, message):
    with pytest.raises(ValueError, match="^svt1/train.xml.*" + message):
        parse_svt_xml(data, "svt1/train.xml")


def test_a_huge_file_is_not_read_to_its_end(tmp_path):
    with (tmp_path / "train.xml").open("wb") as file:
        file.truncate(2**40)  # a terabyte that takes no room on disk
    with pytest.raises(ValueError, match="larger than"):
        read_svt_xml(tmp_path / "train.xml")
