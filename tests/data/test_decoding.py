"""What decodes to which pixels, how images are turned, and what is refused."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from photographs import BLACK, BLUE, GREEN, PHOTOS, RED, WHITE, encode, photo, with_orientation
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from camjax.data import decoding
from camjax.data.decoding import ImageError, decode_image, decode_upright
from camjax.data.pixel_boxes import turn_boxes, turn_boxes_back


def png(width, height, depth, color_type, rows=b"", chunks=b""):
    """A PNG made by hand, for the kinds that Pillow does not write; rows carry a filter byte each."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunks,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def png16(values, color_type):
    values = np.asarray(values, ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 16, color_type, rows)


def tiff16(pixels, orientation):
    """A little-endian 16-bit RGB TIFF (baseline tags, one strip), which Pillow does not write."""
    height, width, _ = pixels.shape
    data = np.asarray(pixels, "<u2").tobytes()
    short, long, count = 3, 4, 10
    depths = 8 + 2 + 12 * count + 4  # where the three bit depths are, after the header and the tags
    tags = [
        (256, short, 1, width),
        (257, short, 1, height),
        (258, short, 3, depths),
        (259, short, 1, 1),  # not compressed
        (262, short, 1, 2),  # RGB
        (273, long, 1, depths + 6),
        (274, short, 1, orientation),
        (277, short, 1, 3),
        (278, short, 1, height),
        (279, long, 1, len(data)),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, count) + entries + struct.pack("<I3H", 0, 16, 16, 16) + data


def decode(data):
    return decode_image(data, apply_exif=True)


# Ordinary images


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.name)
def test_jpeg_photographs_agree_with_pillow(path):
    data = path.read_bytes()
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    pixels = decode(data)
    assert pixels.shape == expected.shape and pixels.dtype == np.uint8
    # Both are libjpeg-turbo; another build may round a pixel otherwise.
    assert np.abs(pixels - expected).max() <= 2
    assert np.abs(pixels - expected).mean() < 0.05


def test_png_is_exact_and_rgb():
    pixels = np.array([[RED, GREEN], [BLUE, (1, 2, 3)]], np.uint8)
    np.testing.assert_array_equal(decode(encode(pixels, "PNG")), pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_gray_is_repeated(kind):
    gray = photo().convert("L")
    pixels = decode(encode(gray, kind, **({"quality": 100} if kind == "JPEG" else {})))
    assert (pixels == pixels[..., :1]).all()
    assert np.abs(pixels[..., 0].astype(int) - np.asarray(gray)).max() <= 2


def test_progressive_jpeg():
    data = encode(photo(), "JPEG", progressive=True)
    assert np.abs(decode(data).astype(int) - np.asarray(Image.open(io.BytesIO(data)))).max() <= 2


def test_the_first_picture_of_a_camera_multi_picture_file():
    first, second = Image.new("RGB", (16, 8), RED), Image.new("RGB", (16, 8), BLUE)
    data = encode(first, "MPO", save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert np.abs(decode(data).astype(int) - RED).max() <= 2


def test_pixels_can_be_written_to():
    for kind in ("JPEG", "PNG"):
        decode(encode(photo(), kind))[0, 0] = 0


# Modes


def test_transparency_is_laid_over_white():
    pixels = np.array([[(10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 0, 128)]], np.uint8)
    over_white = [[(10, 20, 30), WHITE, (127, 127, 127)]]  # 0 * 128/255 + 255 * 127/255 = 127
    np.testing.assert_array_equal(decode(encode(pixels, "PNG")), over_white)


def test_gray_with_transparency():
    pixels = np.array([[(40, 255), (40, 0)]], np.uint8)
    data = encode(Image.frombytes("LA", (2, 1), pixels.tobytes()), "PNG")
    np.testing.assert_array_equal(decode(data), [[(40, 40, 40), WHITE]])


def palette_image():
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([*RED, *GREEN, *BLUE])
    return image


def test_palette():
    np.testing.assert_array_equal(decode(encode(palette_image(), "PNG")), [[RED, GREEN, BLUE]])


def test_palette_with_transparency():
    data = encode(palette_image(), "PNG", transparency=bytes([255, 0, 255]))
    np.testing.assert_array_equal(decode(data), [[RED, WHITE, BLUE]])


def test_color_key_is_transparent():
    data = encode(np.array([[RED, GREEN]], np.uint8), "PNG", transparency=GREEN)
    np.testing.assert_array_equal(decode(data), [[RED, WHITE]])


def test_one_and_two_bits():
    one = Image.frombytes("1", (4, 1), bytes([0b01100000]))
    np.testing.assert_array_equal(decode(encode(one, "PNG"))[0, :, 0], [0, 255, 255, 0])
    two = png(4, 1, 2, 0, b"\0" + bytes([0b00011011]))
    np.testing.assert_array_equal(decode(two)[0, :, 0], [0, 85, 170, 255])


def test_cmyk_jpeg_inverted_as_adobe_does():
    cyan = encode(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100)
    assert b"Adobe" in cyan  # Pillow writes CMYK as Photoshop does: inverted, with Adobe's marker
    assert np.abs(decode(cyan).astype(int) - (0, 255, 255)).max() <= 3
    image = photo()
    pixels = decode(encode(image.convert("CMYK"), "JPEG", quality=100))
    assert np.abs(pixels.astype(int) - np.asarray(image)).mean() < 2


# 16 bits: 128 is the last value below one half of 257, 129 the first above. High bytes would give 0, 0, 128, 253.
DEEP = [0, 128, 129, 0x80FF, 65000, 65535]
SCALED = [0, 0, 1, 128, 253, 255]


def test_16_bit_gray_is_scaled_and_rounded():
    data = png16([DEEP], 0)
    np.testing.assert_array_equal(decode(data), np.repeat(np.array([SCALED])[..., None], 3, -1))
    tiff = encode(np.array([DEEP], np.uint16), "TIFF")
    np.testing.assert_array_equal(decode(tiff), decode(data))
    pgm = b"P5 6 1 65535\n" + np.array(DEEP, ">u2").tobytes()
    np.testing.assert_array_equal(decode(pgm), decode(data))


def test_16_bit_color_is_scaled_and_rounded_in_rgb_order():
    deep = np.stack([DEEP, DEEP[::-1], np.full(6, 257 * 7)], -1)[None]
    scaled = np.stack([SCALED, SCALED[::-1], np.full(6, 7)], -1)[None]
    np.testing.assert_array_equal(decode(png16(deep, 2)), scaled)


def test_16_bit_color_with_transparency():
    deep = [[(257 * 10, 129, 128, 65535), (1, 2, 3, 0)]]
    np.testing.assert_array_equal(decode(png16(deep, 6)), [[(10, 1, 0), WHITE]])


def test_16_bit_gray_with_transparency():
    np.testing.assert_array_equal(decode(png16([[(129, 65535), (9, 0)]], 4)), [[(1, 1, 1), WHITE]])


def test_animated_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 3), color) for color in (RED, GREEN, BLUE)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    np.testing.assert_array_equal(decode(data), np.full((3, 4, 3), RED))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_of_unknown_range_are_refused(dtype):
    with pytest.raises(ImageError, match=r"32-bit .* scale it to 8 or 16 bits"):
        decode(encode(np.ones((2, 2), dtype), "TIFF"))


# Twins: one image in 8 bits and in 16


def tiff(samples, photometric, extra=(), order="<", **options):
    """A TIFF of (H, W) or (H, W, bands) values as stored."""
    file = io.BytesIO()
    options |= {"extrasamples": list(extra)} if extra else {}
    bands = "contig" if samples.ndim == 3 else None
    tifffile.imwrite(
        file, samples, byteorder=order, photometric=photometric, **{"planarconfig": bands, "metadata": None, **options}
    )
    return file.getvalue()


def color_key(*key):
    data = struct.pack(f">{len(key)}H", *key)
    return struct.pack(">I", len(data)) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))


KINDS = [  # photometric interpretation, bands, what the further bands are, and the color as it is seen
    ("minisblack", [40], (), 40),
    ("miniswhite", [40], (), 215),
    ("minisblack", [40, 0], (0,), 40),  # an unspecified band hides nothing
    ("miniswhite", [40, 0], (0,), 215),
    ("minisblack", [40, 102], (2,), 40 * 0.4 + 255 * 0.6),
    ("minisblack", [40, 102], (1,), 40 + 255 * 0.6),  # premultiplied
    ("miniswhite", [40, 102], (2,), 215 * 0.4 + 255 * 0.6),
    ("rgb", [200, 0, 50], (), (200, 0, 50)),
    ("rgb", [200, 0, 50, 0], (0,), (200, 0, 50)),
    ("rgb", [200, 0, 50, 102], (2,), (200 * 0.4 + 153, 153, 50 * 0.4 + 153)),
    ("rgb", [80, 0, 20, 102], (1,), (80 + 153, 153, 20 + 153)),
    ("rgb", [200, 0, 50, 7, 9], (0, 0), (200, 0, 50)),
    ("rgb", [80, 0, 20, 102, 9], (1, 0), (80 + 153, 153, 20 + 153)),
    ("separated", [0, 255, 255, 0], (), (255, 0, 0)),
    ("separated", [0, 255, 255, 0, 9], (0,), (255, 0, 0)),
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("photometric", "bands", "extra", "seen"), KINDS)
def test_a_tiff_of_16_bits_gives_what_its_twin_of_8_bits_gives(order, photometric, bands, extra, seen):
    eight = np.tile(np.uint8(bands), (2, 3, 1)).squeeze(2) if len(bands) == 1 else np.tile(np.uint8(bands), (2, 3, 1))
    for samples in (eight, eight * np.uint16(257)):
        pixels = decode(tiff(samples, photometric, extra, order))
        assert pixels.shape == (2, 3, 3)
        np.testing.assert_allclose(pixels, np.broadcast_to(seen, pixels.shape), atol=2)
    np.testing.assert_array_equal(pixels, decode(tiff(eight, photometric, extra, order)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "options",
    [
        {"rowsperstrip": 5},
        {"tile": (16, 32)},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "rowsperstrip": 5},
        {"planarconfig": "separate", "tile": (16, 16)},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": 2},
        {"compression": "zlib", "predictor": 2, "tile": (16, 32)},
        {"bigtiff": True},
    ],
    ids=str,
)
def test_layouts_of_16_bit_tiff(order, options):
    image = np.asarray(photo(70, 43))
    deep = image * np.uint16(257) + np.random.default_rng(0).integers(-100, 100, image.shape).astype(np.uint16)
    deep = np.where(image % 255 == 0, image * np.uint16(257), deep)
    stored = np.moveaxis(deep, -1, 0) if "planarconfig" in options else deep
    np.testing.assert_array_equal(decode(tiff(stored, "rgb", (), order, **options)), image)


@pytest.mark.parametrize("kind", [".tiff", ".png"])
def test_16_bit_files_that_opencv_writes(kind):
    image = np.asarray(photo())
    data = cv2.imencode(kind, image[..., ::-1] * np.uint16(257))[1].tobytes()  # TIFF: LZW with differences
    np.testing.assert_array_equal(decode(data), image)


@pytest.mark.parametrize(
    ("color_type", "depth", "values", "key"),
    [(0, 8, [40, 200], 1), (0, 16, [40, 200], 1), (2, 8, [9, 8, 7, 200, 0, 50], 3), (2, 16, [9, 8, 7, 200, 0, 50], 3)],
)
def test_a_color_key_in_8_and_16_bits(color_type, depth, values, key):
    scale = 257 if depth == 16 else 1
    row = (np.array(values) * scale).astype(">u2" if depth == 16 else "u1").tobytes()
    data = png(2, 1, depth, color_type, b"\0" + row, color_key(*(value * scale for value in values[:key])))
    np.testing.assert_array_equal(decode(data), [[WHITE, np.broadcast_to(values[key:], 3)]])


def test_a_color_key_below_8_bits_and_one_that_differs_in_the_low_byte():
    two = png(4, 1, 2, 0, b"\0" + bytes([0b00011011]), color_key(1))
    np.testing.assert_array_equal(decode(two)[0, :, 0], [0, 255, 170, 255])
    four = png(2, 1, 4, 0, b"\0" + bytes([0x2D]), color_key(2))
    np.testing.assert_array_equal(decode(four)[0, :, 0], [255, 13 * 17])
    near = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 40 * 257, 40 * 257 + 1), color_key(40 * 257))
    np.testing.assert_array_equal(decode(near)[0, :, 0], [255, 40])


def test_bmp_of_16_bits_a_pixel():
    row = struct.pack("<2H", 0b11111_000000_00000, 0b00000_111111_00000)
    header = struct.pack("<IiiHHIIiiII3I", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0, 0xF800, 0x07E0, 0x001F)
    data = struct.pack("<2sIHHI", b"BM", 70, 0, 0, 66) + header + row
    np.testing.assert_array_equal(decode(data), [[RED, GREEN]])


def test_tiff_of_12_bits():
    values = np.array([[0, 1000, 2048, 4095]])
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 6)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = struct.pack("<2sHI", b"II", 42, 14) + bytes.fromhex("0003e8800fff")
    data += struct.pack("<H", len(tags)) + entries + bytes(4)
    np.testing.assert_array_equal(decode(data)[..., 0], np.rint(values * 255 / 4095))


@pytest.mark.parametrize(
    ("samples", "photometric", "extra", "message"),
    [
        (np.int8([[-100]]), "minisblack", (), "8-bit signed integer values"),
        (np.int16([[-1000]]), "minisblack", (), "16-bit signed integer values"),
        (np.float16([[0.5]]), "minisblack", (), "16-bit floating-point values"),
        (np.float32([[0.5]]), "minisblack", (), "32-bit floating-point values"),
        (np.uint32([[5]]), "minisblack", (), "32-bit unsigned integer values"),
        (np.float32([[[0.5] * 3]]), "rgb", (), "32-bit floating-point values"),
        (np.uint16([[[5] * 4]]), "minisblack", (0, 0, 0), r"4 bands of 16 bits \(gray, of them 3 beyond the color"),
        (np.uint8([[[5] * 4]]), "minisblack", (0, 0, 0), r"4 bands of 8 bits \(gray, of them 3 beyond the color"),
        (np.uint16([[5]]), "cfa", (), r"1 bands of 16 bits \(photometric interpretation 32803\)"),
        (np.uint16([[[5] * 5]]), "separated", (2,), r"5 bands of 16 bits \(CMYK, of them 1 beyond"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_is_not_read_is_named(order, samples, photometric, extra, message):
    with pytest.raises(ImageError, match=f"a TIFF image (with|of) {message}"):
        decode(tiff(samples, photometric, extra, order))


def test_pillows_limit_counts_pixels_and_not_bands(monkeypatch, recwarn):
    data = tiff(np.asarray(photo(40, 30)) * np.uint16(257), "rgb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 30)
    assert decode(data).shape == (30, 40, 3) and not recwarn


def test_the_tag_of_differences_means_nothing_without_compression():
    data = tiff(np.asarray(photo(40, 30)) * np.uint16(257), "rgb")
    unit, differences = struct.pack("<HHIH", 296, 3, 1, 1), struct.pack("<HHIH", 317, 3, 1, 2)
    assert data.count(unit) == 1
    data = data.replace(unit, differences)
    np.testing.assert_array_equal(decode(data), photo(40, 30))


def test_a_16_bit_tiff_that_is_cut_off():
    data = tiff(np.asarray(photo(40, 30)) * np.uint16(257), "rgb", compression="zlib", rowsperstrip=5)
    with pytest.raises(ImageError, match=r"40 x 30 pixels.*cut off or damaged"):
        decode(data[: len(data) // 2])


# Turning

CORNERS = np.repeat(np.repeat(np.array([[RED, GREEN, BLUE], [WHITE, BLACK, BLACK]], np.uint8), 16, 0), 16, 1)
TURNED = {  # the colors R, G, B over W, K, K, turned by hand
    1: ["RGB", "WKK"],
    2: ["BGR", "KKW"],
    3: ["KKW", "BGR"],
    4: ["WKK", "RGB"],
    5: ["RW", "GK", "BK"],
    6: ["WR", "KG", "KB"],
    7: ["KB", "KG", "WR"],
    8: ["BK", "GK", "RW"],
}
LETTERS = {"R": RED, "G": GREEN, "B": BLUE, "W": WHITE, "K": BLACK}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns(kind, orientation):
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "PNG": {}}[kind]
    data = encode(CORNERS, kind, exif=with_orientation(orientation), **options)
    expected = np.array([[LETTERS[letter] for letter in row] for row in TURNED[orientation]])
    turned = decode_image(data, apply_exif=True)
    assert np.abs(turned[8::16, 8::16].astype(int) - expected).max() <= 3
    oracle = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert turned.shape == oracle.shape and np.abs(turned.astype(int) - oracle).max() <= 2
    stored = decode_image(data, apply_exif=False)
    upright, found = decode_upright(data)
    np.testing.assert_array_equal(upright, turned)
    height, width = upright.shape[:2]
    for y, x in np.argwhere(np.ones((height, width)))[::7]:  # a box around one pixel, brought back, and turned again
        box = np.array([y, x, y + 1, x + 1])
        y0, x0, y1, x1 = back = turn_boxes_back(box, found, (height, width))
        np.testing.assert_array_equal(stored[y0:y1, x0:x1], upright[None, None, y, x])
        np.testing.assert_array_equal(turn_boxes(back, found, stored.shape[:2]), box)
    assert stored.shape == CORNERS.shape and np.abs(stored.astype(int) - CORNERS).max() <= 3


def test_exif_turns_16_bit_color():
    exif = with_orientation(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    rows = b"\0" + np.array([[257, 514, 771], [1028, 1285, 1542]], ">u2").tobytes()
    data = png(2, 1, 16, 2, rows, chunk)
    np.testing.assert_array_equal(decode_image(data, apply_exif=True), [[(1, 2, 3)], [(4, 5, 6)]])
    np.testing.assert_array_equal(decode_image(data, apply_exif=False), [[(1, 2, 3), (4, 5, 6)]])


@pytest.mark.parametrize("apply_exif", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_is_turned_once(apply_exif, dtype):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[ExifTags.Base.Orientation] = 6
    values = np.array([[1, 2, 3]], dtype) * (257 if dtype is np.uint16 else 1)
    data = encode(values, "TIFF", tiffinfo=tags)
    np.testing.assert_array_equal(decode_image(data, apply_exif=apply_exif)[..., 0], [[1], [2], [3]])


@pytest.mark.parametrize("apply_exif", [True, False])
def test_16_bit_color_tiff_is_turned_once(apply_exif):
    data = tiff16(257 * np.array([[(1, 2, 3), (4, 5, 6)]]), 6)
    np.testing.assert_array_equal(decode_image(data, apply_exif=apply_exif), [[(1, 2, 3)], [(4, 5, 6)]])


@pytest.mark.parametrize("tag", [0, 9])
def test_an_orientation_without_meaning_changes_nothing(tag):
    data = encode(CORNERS, "PNG", exif=with_orientation(tag))
    np.testing.assert_array_equal(decode(data), CORNERS)


def test_an_orientation_that_is_a_text_changes_nothing():
    a_number, a_text = b"\x01\x12\x00\x03", b"\x01\x12\x00\x02"
    data = encode(CORNERS, "JPEG", exif=with_orientation(6))
    assert data.count(a_number) == 1
    np.testing.assert_array_equal(decode(data.replace(a_number, a_text)), decode(encode(CORNERS, "JPEG")))


# Bad input


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["JPEG", "progressive", "with thumbnail", "CMYK", "PNG", "16-bit PNG", "GIF"])
def test_a_cut_image_is_an_error(kind, fraction):
    image = photo(128, 96)
    if kind == "progressive":
        data = encode(image, "JPEG", progressive=True)
    elif kind == "with thumbnail":  # the thumbnail brings an end-of-image marker of its own
        data = encode(image, "JPEG", comment=encode(photo(16, 12), "JPEG"))
    elif kind == "CMYK":
        data = encode(image.convert("CMYK"), "JPEG")
    elif kind == "16-bit PNG":
        data = png16(np.asarray(image) * np.uint16(257), 2)
    else:
        data = encode(image, kind)
    assert decode(data).shape == (96, 128, 3)
    with pytest.raises(ImageError, match=r"128 x 96 pixels.*cut off or damaged.*complete copy"):
        decode(data[: int(len(data) * fraction)])


def test_a_jpeg_without_its_last_two_bytes_is_an_error():
    with pytest.raises(ImageError, match="cut off"):
        decode(PHOTOS[0].read_bytes()[:-2])


def test_a_damaged_png_is_an_error():
    data = bytearray(encode(photo(), "PNG"))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.filterwarnings("ignore")  # Pillow comments on broken metadata
def test_random_damage_gives_an_image_or_an_image_error(kind, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 10**6)
    whole = encode(photo(), kind, exif=with_orientation(6)) if kind != "BMP" else encode(photo(), kind)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 300), 3):
            data[place] = rng.integers(256)
        try:
            pixels = decode(bytes(data))
            assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8 and pixels.size
        except ImageError:
            refused += 1
    assert refused > 0


def test_too_many_pixels_are_refused_from_the_header(monkeypatch):
    bomb = png(60_000, 60_000, 8, 2)
    with pytest.raises(ImageError, match=r"3600000000 pixels.*smaller copy"):
        decode(bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as many programs do
    with pytest.raises(ImageError, match=r"60000 x 60000 pixels, more than the 178956970.*smaller copy"):
        decode(bomb)


def test_the_pixel_limit_is_inclusive(monkeypatch):
    data = encode(photo(8, 4), "PNG")
    monkeypatch.setattr(decoding, "MAX_PIXELS", 32)
    assert decode(data).shape == (4, 8, 3)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 31)
    with pytest.raises(ImageError, match="8 x 4 pixels"):
        decode(data)
