import jax.numpy as jnp
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.font_manager import fontManager
from skimage import data

from camjax import figure_text
from camjax.cam import normalize_map, resize_map
from camjax.outputs import CamOutput
from camjax.viz import (
    PREDICTED,
    TRUE,
    comparison_figure,
    comparisons_figure,
    explanation_figure,
    localization_figure,
    overlay,
)

BLACK_TO_RED = ListedColormap([[0, 0, 0], [1, 0, 0]])  # black below one half, red from there on


def pixels(figure) -> np.ndarray:
    """The figure as (H, W, 3) integers."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def extent(mask: np.ndarray) -> np.ndarray:
    """[ymin, xmin, ymax, xmax] of the pixels that are on; half-open."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


def close_to(picture, color, tolerance=12) -> np.ndarray:
    return (np.abs(picture - np.multiply(to_rgb(color), 255)) <= tolerance).all(-1)


def test_overlay_by_hand():
    image = np.full((1, 4, 3), 100, np.uint8)
    # The map becomes [0, 1, 3, 4] at half-pixel centers, then [0, 1/4, 3/4, 1].
    blended = overlay(image, [[0.0, 4.0]], alpha=0.25, colormap=BLACK_TO_RED)
    # 0.75 * 100 = 75, and 75 + 0.25 * 255 = 138.75.
    np.testing.assert_array_equal(blended, [[[75, 75, 75]] * 2 + [[139, 75, 75]] * 2])
    assert blended.dtype == np.uint8 and (image == 100).all()


def test_overlay_puts_a_maps_corners_on_the_images_corners():
    red = overlay(data.chelsea(), [[3, -1], [-1, -1]], alpha=1, colormap=BLACK_TO_RED)[..., 0] > 0
    assert red[0, 0] and not red[0, -1] and not red[-1, 0] and not red[-1, -1]


@pytest.mark.parametrize("empty", [[[2.0, 2.0]], [[np.nan, 1.0]], [[np.inf, 1.0]], [[0, 0]]])
def test_a_map_without_a_scale_has_the_lowest_color(empty):
    # jet begins at (0, 0, 0.5).
    np.testing.assert_array_equal(overlay(np.full((2, 3, 3), 60, np.uint8), empty), np.tile([30, 30, 94], (2, 3, 1)))


def test_alpha_0_is_the_image_and_alpha_1_the_color():
    image = data.coffee()
    heat = np.arange(49.0).reshape(7, 7)
    np.testing.assert_array_equal(overlay(image, heat, alpha=0), image)
    np.testing.assert_array_equal(overlay(image, heat, alpha=1), overlay(255 - image, heat, alpha=1))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float64, np.int64, bool])
def test_maps_of_any_real_type(dtype):
    image = np.full((1, 2, 3), 100, np.uint8)
    map = jnp.array([[False, True]]).astype(dtype) if dtype is jnp.bfloat16 else np.array([[0, 1]], dtype)
    np.testing.assert_array_equal(overlay(image, map, alpha=1, colormap=BLACK_TO_RED), [[[0, 0, 0], [255, 0, 0]]])


def test_batches_are_their_images_one_by_one():
    rng = np.random.default_rng(0)
    images, maps = rng.integers(0, 256, (2, 5, 4, 3), np.uint8), rng.normal(size=(2, 3, 3))
    each = [overlay(image, map) for image, map in zip(images, maps, strict=True)]
    np.testing.assert_array_equal(overlay(images, maps), each)
    np.testing.assert_array_equal(overlay(images[0], maps), [each[0], overlay(images[0], maps[1])])


@pytest.mark.parametrize(
    "image, map, options, message",
    [
        (np.zeros((4, 4, 3), np.float32), np.zeros((2, 2)), {}, "uint8 RGB"),
        (np.zeros((4, 4), np.uint8), np.zeros((2, 2)), {}, r"\(..., H, W, 3\)"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros(2), {}, r"map of shape \(2,\)"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2), complex), {}, "real numbers"),
        (np.zeros((4, 4, 3), np.uint8), CamOutput(np.zeros((1, 2)), [[0]], np.zeros((1, 1, 2, 2))), {}, "a CamOutput;"),
        (np.zeros((4, 4, 3), np.uint8), np.full((2, 2), "a"), {}, "real numbers"),
        # With as many images as maps of each, broadcasting would pair the wrong ones.
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 2, 3, 3)), {}, "same leading dimensions"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2)), {"alpha": 1.5}, "alpha=1.5"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2)), {"colormap": "jett"}, "colormap='jett'"),
    ],
)
def test_overlay_refuses(image, map, options, message):
    with pytest.raises(ValueError, match=message):
        overlay(image, map, **options)


@pytest.mark.parametrize("which", ["predicted", "true"])
def test_a_box_is_drawn_around_its_pixels(which):
    box, nowhere = np.array([0.2, 0.3, 0.6, 0.8]), np.zeros(4)
    boxes = ([box], [nowhere]) if which == "predicted" else ([nowhere], [box])
    # White under the lowest color of jet: light blue, which nothing else in the figure has.
    figure = localization_figure([np.full((50, 80, 3), 255, np.uint8)], [np.zeros((3, 3))], *boxes)
    (axis,) = figure.axes
    figure.legends.clear()
    picture = pixels(figure)
    ymin, xmin, ymax, xmax = extent(close_to(picture, (0.5, 0.5, 0.75)))
    assert (ymax - ymin) / (xmax - xmin) == pytest.approx(50 / 80, abs=0.01)
    expected = box * np.tile([ymax - ymin, xmax - xmin], 2) + [ymin, xmin] * 2
    style = PREDICTED if which == "predicted" else TRUE
    inside = np.zeros(picture.shape[:2], bool)
    inside[ymin:ymax, xmin:xmax] = True
    line = extent(close_to(picture, style["edgecolor"]) & inside)
    # The line is 1.8 points wide, and lies evenly on both sides of the edge.
    half = 1.8 / 2 * figure.dpi / 72
    np.testing.assert_allclose(line, expected + np.array([-half, -half, half, half]), atol=1.5)
    assert len(axis.patches) == 2  # the line and its rim; nothing of the box without area


def test_localization_figure_has_a_cell_an_image_and_says_which_box_is_which():
    images = [data.chelsea()[::4, ::4]] * 5
    figure = localization_figure(
        images, np.zeros((5, 7, 7)), np.tile([0, 0, 0.5, 0.5], (5, 1)), [np.zeros((2, 4))] * 5, list("abcde"), columns=3
    )
    assert [axis.get_title() for axis in figure.axes] == list("abcde")
    tops = [round(axis.get_position().y1, 6) for axis in figure.axes]
    assert tops[0] == tops[1] == tops[2] > tops[3] == tops[4]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["predicted box", "true box"]
    figure = localization_figure(images[:1], np.zeros((1, 7, 7)), [[0, 0, 0.5, 0.5]], [np.zeros((0, 4))])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["predicted box"]


def test_explanation_figure_shows_each_photograph_and_its_classes():
    photos = [data.chelsea(), data.coffee()[:, :300]]
    hot_top_left = np.pad(np.ones((1, 1)), (0, 6))
    figure = explanation_figure(
        photos,
        [[hot_top_left, hot_top_left[:, ::-1]]] * 2,
        [np.array([[0, 0, 0.5, 0.5], [0, 0, 0, 0]])] * 2,
        [["tabby, tabby cat", "crane"], ["cup", "sulphur-crested cockatoo, " * 9]],
        [[0.791, 0.05], [0.5, 0.001]],
        titles=["cat.png", "$coffee$.png"],
        colormap=BLACK_TO_RED,
    )
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:5] == ["cat.png", "tabby, tabby cat\n79.1%", "crane\n5.0%", "$coffee$.png", "cup\n50.0%"]
    assert titles[5].endswith("…\n0.1%") and titles[5].count("\n") == 2
    assert [len(axis.patches) for axis in figure.axes] == [0, 2, 0, 0, 2, 0]
    for axis, photo in zip(figure.axes[::3], photos, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), photo)
    picture = pixels(figure)
    assert len(picture) == pytest.approx(figure.get_figheight() * 150, abs=1)
    # No title reaches into another column, or out of the figure.
    bounds = [axis.title.get_window_extent() for axis in figure.axes]
    for row in (bounds[:3], bounds[3:]):
        assert row[0].x0 >= 0 and row[2].x1 <= picture.shape[1]
        assert row[0].x1 < row[1].x0 and row[1].x1 < row[2].x0


def test_comparison_figure_has_a_row_a_class_and_a_column_a_method():
    photo = data.chelsea()
    hot_top_left = np.pad(np.ones((1, 1)), (0, 6))
    maps = [np.stack([hot_top_left, hot_top_left[:, ::-1]]), np.stack([hot_top_left[::-1]] * 2)]
    boxes = [np.array([[0, 0, 0.5, 0.5], [0, 0, 0, 0]])] * 2
    figure = comparison_figure(photo, maps, boxes, ["cam", "scorecam"], ["tabby", "$crane$"], [0.791, 0.05])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["tabby\n79.1%", "cam", "scorecam", "$crane$\n5.0%", "cam", "scorecam"]
    assert [len(axis.patches) for axis in figure.axes] == [0, 2, 2, 0, 0, 0]
    shown = [axis.images[0].get_array() for axis in figure.axes]
    np.testing.assert_array_equal(shown[0], photo)
    np.testing.assert_array_equal(shown[1], overlay(photo, maps[0][0]))
    np.testing.assert_array_equal(shown[5], overlay(photo, maps[1][1]))
    with pytest.raises(ValueError, match="2 maps, 1 boxes"):
        comparison_figure(photo, maps, boxes[:1], ["cam", "scorecam"], ["a", "b"], [0.5, 0.5])
    with pytest.raises(ValueError, match="cam has 2, 2 maps and boxes: expected 1 each"):
        comparison_figure(photo, maps, boxes, ["cam", "scorecam"], ["a"], [0.5])


def test_figures_refuse_numbers_that_differ():
    image, map, box = data.chelsea(), np.zeros((1, 7, 7)), np.zeros((1, 4))
    with pytest.raises(ValueError, match="1 images, 2 maps"):
        explanation_figure([image], [map, map], [box], [["a"]], [[1.0]])
    with pytest.raises(ValueError, match="image 1 has"):
        explanation_figure([image] * 2, [map] * 2, [box] * 2, [["a"], ["a", "b"]], [[1.0]] * 2)
    with pytest.raises(ValueError, match="at least 1"):
        localization_figure([], [], [], [])
    with pytest.raises(ValueError, match="columns=0"):
        localization_figure([image], map, box, box, columns=0)


GROWING = np.array([[-2.0, 4.0]]), np.array([[-1.0, 1.0]])  # of one picture
FALLING = np.array([[3.0, 0.0]]), np.array([[-3.0, -1.0]])  # of another
NOTES = ["max 4", "max 1", "max 3", "max -1"]


@pytest.mark.parametrize(
    "scale, ends, notes, caption",
    [
        (
            "picture",
            [(0, 4), (0, 4), (0, 3), (0, 3)],
            NOTES,
            "Colors: from 0 to the greatest value of each picture's maps.",
        ),
        ("all", [(0, 4)] * 4, NOTES, "Colors: from 0 to 4 in all maps."),
        (8, [(0, 8)] * 4, NOTES, "Colors: from 0 to 8 in all maps."),
        (
            "each",
            [(-2, 4), (-1, 1), (0, 3), (-3, -1)],
            ["-2 to 4", "-1 to 1", "max 3", "-3 to -1"],
            "Colors: each map from its least value to its greatest; they compare places, not maps.",
        ),
    ],
)
def test_a_figure_says_its_scale(scale, ends, notes, caption):
    images, maps = [np.full((2, 6, 3), 100, np.uint8)] * 2, [GROWING, FALLING]
    figure = explanation_figure(images, maps, [np.zeros((2, 4))] * 2, [["a", "b"]] * 2, [[0.5, 0.5]] * 2, scale=scale)
    shown = [axis.images[0].get_array() for axis in figure.axes if "%" in axis.get_title()]
    for picture, map, limits in zip(shown, [*GROWING, *FALLING], ends, strict=True):
        np.testing.assert_array_equal(picture, overlay(images[0], map, limits=limits))
    assert [text.get_text() for text in figure.texts] == [*notes, caption]


def test_limits_by_hand():
    image = np.full((1, 4, 3), 100, np.uint8)
    # The map becomes [-2, -0.5, 2.5, 4] at half-pixel centers; between limits of 0 and 4: [0, 0, 0.625, 1].
    shared = overlay(image, GROWING[0], alpha=1, colormap=BLACK_TO_RED, limits=(0, 4))
    np.testing.assert_array_equal(shared[0, :, 0], [0, 0, 255, 255])
    np.testing.assert_array_equal(
        overlay(image, GROWING[0], alpha=1, colormap=BLACK_TO_RED, limits=(0, 6))[0, 2:, 0], [0, 255]
    )
    # Nothing is above 0: the lowest color, as of a map without a box.
    assert not overlay(image, FALLING[1], alpha=1, colormap=BLACK_TO_RED, limits=(0, 0)).any()


def test_maps_are_resized_as_resize_map_does():
    rng = np.random.default_rng(0)
    for size, shape in (((50, 31), (7, 5)), ((3, 90), (7, 9)), ((4, 4), (1, 2))):
        map = rng.normal(size=shape).astype(np.float32)
        expected = np.asarray(normalize_map(resize_map(map, size)))
        gray = overlay(np.zeros((*size, 3), np.uint8), map, alpha=1, colormap="gray")[..., 0]
        np.testing.assert_allclose(gray / 255, expected, atol=1 / 250)


LONG = "a_name_of_sixty_letters_without_a_space_IMG_20260401_1234.jpg"
WORDS = "sulphur-crested cockatoo, Kakatoe galerita, Cacatua galerita"
MIXED = [(30, 40), (40, 30), (10, 60), (60, 10), (40, 40), (9, 12)]  # panoramas and portraits among them


@pytest.mark.parametrize(
    "sizes, classes, options",
    [
        ([(30, 40)], 1, {}),
        (MIXED, 1, {"colorbar": True, "scale": "each"}),
        (MIXED, 3, {"columns": 2, "colorbar": True}),
        (MIXED * 2, 1, {"scale": "all", "colorbar": True}),
        ([(10, 80)], 3, {"colorbar": True}),
        ([(80, 10)] * 3, 2, {"columns": 3}),
        ([(30, 40), (20, 40)] * 25, 1, {}),
    ],
)
def test_nothing_in_a_figure_lies_over_another(sizes, classes, options):
    rng = np.random.default_rng(0)
    figure = explanation_figure(
        [np.zeros((*size, 3), np.uint8) for size in sizes],
        [rng.normal(size=(classes, 2, 2)) * 1e-5 for _ in sizes],
        [np.zeros((classes, 4))] * len(sizes),
        [([WORDS, "W" * 60, "cup"] * 2)[:classes]] * len(sizes),
        [[0.5] * classes] * len(sizes),
        titles=[LONG] * len(sizes),
        **options,
    )
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [axis.title for axis in figure.axes if axis.get_title()] + figure.texts
    places = [axis.get_window_extent() for axis in figure.axes]
    places += [text.get_window_extent(renderer) for text in texts]
    edges = np.array([[place.x0, place.y0, place.x1, place.y1] for place in places]) / figure.dpi
    assert edges.min() > -0.02 and (edges[:, 2:] < figure.get_size_inches() + 0.02).all()
    # In inches; a point of a text may touch a picture.
    overlaps = np.minimum(edges[:, None, 2:], edges[None, :, 2:]) - np.maximum(edges[:, None, :2], edges[None, :, :2])
    np.fill_diagonal(overlaps[..., 0], 0)
    assert overlaps.min(-1).max() < 0.03


def test_photographs_are_a_grid_and_panoramas_are_wide():
    def figure(number, size, **options):
        arguments = np.zeros((number, 1, 2, 2)), np.zeros((number, 1, 4)), [["cat"]] * number, [[0.5]] * number
        return explanation_figure([np.zeros((*size, 3), np.uint8)] * number, *arguments, **options)

    for number in (2, 12):
        width, height = figure(number, (40, 60)).get_size_inches()
        assert 1 / 2 < width / height < 2
    width, height = figure(12, (4, 6), columns=1).get_size_inches()
    assert width == pytest.approx(6.98) and height > 24
    # The width of a page, where a photograph has half of it: the map is below.
    photograph, panorama = (figure(1, size).axes[0].get_position().width for size in ((40, 60), (10, 60)))
    assert panorama > 0.95 and photograph < 0.5


def test_what_options_leave_out():
    image, map, box = np.zeros((8, 8, 3), np.uint8), np.ones((1, 2, 2)), np.tile([0, 0, 0.5, 0.5], (1, 1))
    figure = localization_figure([image], map, box, box, draw_boxes=False, dpi=30)
    assert not figure.legends and not figure.axes[0].patches and figure.dpi == 30
    figure = comparison_figure(
        image, [map] * 3, [box] * 3, ["a", "b", "c"], ["cat"], [1.0], columns=2, draw_boxes=False
    )
    tops = [axis.get_position().y1 for axis in figure.axes]
    assert tops[0] == tops[1] > tops[2] == tops[3] and not any(axis.patches for axis in figure.axes)
    with pytest.raises(ValueError, match="scale='pictures': expected"):
        explanation_figure([image], [map], [box], [["a"]], [[1]], scale="pictures")


def test_comparisons_of_several_photographs():
    images = [np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4, 3), np.uint8)]
    half_and_whole = np.ones((2, 1, 2)) * [[[0.5]], [[1]]]
    maps = [[2 * half_and_whole] * 2, [8 * half_and_whole] * 2]
    boxes, names = [[np.zeros((2, 4))] * 2] * 2, [["cat", "dog"], ["cup", "cat"]]
    figure = comparisons_figure(images, maps, boxes, ["cam", "b"], names, [[0.5, 0.5]] * 2, titles=["1.jpg", "2.jpg"])
    titles = [axis.get_title() for axis in figure.axes if "%" in axis.get_title()]
    assert titles == ["1.jpg\ncat\n50.0%", "dog\n50.0%", "2.jpg\ncup\n50.0%", "cat\n50.0%"]
    assert [text.get_text() for text in figure.texts][:8] == [f"max {n}" for n in (1, 1, 2, 2, 4, 4, 8, 8)]
    # The classes of each photograph share a scale.
    shown = [axis.images[0].get_array()[0, 0].tolist() for axis in figure.axes if axis.get_title() == "cam"]
    assert shown[0] == shown[2] != shown[1] == shown[3]


def figure_of(name: str):
    """A figure whose one class has this name."""
    image, map, box = np.zeros((8, 8, 3), np.uint8), np.zeros((1, 2, 2)), np.zeros((1, 4))
    return explanation_figure([image], [map], [box], [[name]], [[1]])


@pytest.fixture
def fonts():
    """Matplotlib's fonts, which a test may add to."""
    before = list(fontManager.ttflist)
    yield fontManager
    fontManager.ttflist[:] = before
    for function in (figure_text._families, figure_text._font):
        function.cache_clear()


def test_characters_that_no_font_has_are_said_and_shown_as_codes(fonts):
    fonts.ttflist[:] = [entry for entry in fonts.ttflist if entry.name == "DejaVu Sans"]
    figure_text._families.cache_clear()
    assert figure_text.undrawable("Möwe, 狗 dog 狗 猫") == ["狗", "猫"]
    with pytest.warns(UserWarning, match="no installed font has the characters 狗 猫: the figure shows their codes"):
        figure = figure_of("狗 dog 猫")
    assert figure.axes[1].get_title() == r"\u72d7 dog \u732b" + "\n100.0%"


def test_names_are_drawn_in_a_font_that_has_their_characters(fonts, tmp_path, recwarn):
    # A font with one character: a black square.
    builder, pen = FontBuilder(1000), TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord("狗"): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    fonts.addfont(tmp_path / "squares.ttf")
    figure_text._families.cache_clear()
    assert figure_text.undrawable("狗 dog") == []
    figure = figure_of("狗")
    picture = pixels(figure)
    assert figure.axes[1].get_title() == "狗\n100.0%" and not recwarn.list
    # 10 points at 150 dpi are 21 pixels; the rest of the title is not solid.
    side = 20
    black = (picture[:60].sum(-1) < 60).astype(int)
    solid = np.lib.stride_tricks.sliding_window_view(black, (side, side)).all((-1, -2))
    assert solid.any()
    # A long name stays within its column.
    figure = figure_of("狗" * 50)
    pixels(figure)
    bounds = figure.axes[1].title.get_window_extent()
    assert figure.axes[1].get_window_extent().x0 - 12 <= bounds.x0 and bounds.x1 <= figure.bbox.x1
