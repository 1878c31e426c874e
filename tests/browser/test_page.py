"""`camjax app` in a real browser: `make test-browser`."""

import base64
import contextlib
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
import skimage
from PIL import Image

import camjax
from camjax.data.images import load_image

pytestmark = pytest.mark.browser

PHOTOS = Path(skimage.__file__).parent / "data"
CAT, CUP = PHOTOS / "chelsea.png", PHOTOS / "coffee.png"
SECONDS = 60_000  # of Playwright's, in milliseconds: compiling takes a while


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """An evaluation of eight photographs of two classes, one of which can't be read."""
    root = tmp_path_factory.mktemp("photos")
    lines = ["filename,xmin,ymin,xmax,ymax"]
    boxes = {"Egyptian cat": (CAT, (60, 30, 440, 280)), "espresso": (CUP, (172, 18, 401, 307))}
    for name, (file, (xmin, ymin, xmax, ymax)) in boxes.items():
        (root / "val" / name).mkdir(parents=True)
        for shift in (0, 20, 40, 60)[: 3 if name == "espresso" else 4]:
            Image.fromarray(load_image(file)[:, shift:]).save(root / "val" / name / f"{shift}.png")
            lines.append(f"{name}/{shift}.png,{max(0, xmin - shift)},{ymin},{xmax - shift},{ymax}")
    (root / "val" / "espresso" / "torn.png").write_bytes(CUP.read_bytes()[:2000])
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    words = ["--dataset", root, "--split", "val", "--boxes", root / "boxes.csv", "--method", "cam", "gradcam"]
    command = [
        sys.executable,
        "-m",
        "camjax.cli.main",
        "evaluate",
        *words,
        "--metrics",
        "ilsvrc",
        "--out",
        root / "out",
    ]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return root / "out"


@pytest.fixture(scope="module")
def server(evaluation):
    """The address of `camjax app`; at the end, Ctrl-C ends it with a sentence."""
    command = [sys.executable, "-m", "camjax.cli.main", "app", "--port", "0", str(evaluation)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"The page is at (http://127\.0\.0\.1:\d+)\n", line)
            assert found, line + process.stderr.read()
            yield found[1]
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
            assert (process.returncode, said.splitlines()[-1]) == (130, "camjax: interrupted.")
        finally:
            process.kill()


@pytest.fixture
def page(browser, server):
    """The first page, which has asked nobody else for anything at the end, and has met no error."""
    with new_page(browser, server) as page:
        yield page


@contextlib.contextmanager
def new_page(browser, server, path="/", **settings):
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    page.requested, errors = [], []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("websocket", lambda socket: page.requested.append(socket.url))
    page.goto(server + path)
    if path == "/":
        page.get_by_label("cam", exact=True).wait_for()
    yield page
    assert not errors
    elsewhere = [url for url in page.requested if not url.startswith((f"{server}/", f"blob:{server}/"))]
    assert not elsewhere
    context.close()


def expect(locator):
    from playwright.sync_api import expect

    return expect(locator)


def upload(page, *paths):
    page.locator("#file").set_input_files(paths)
    done(page)


def done(page):
    expect(page.get_by_role("status")).to_have_text("", timeout=SECONDS)


def runs(server):
    return requests.get(f"{server}/api/status").json()["runs"]


def drawn_box(page):
    """The box over the large picture: ymin, xmin, ymax, xmax in 0..1."""
    rect = page.locator("#main rect.predicted")
    y, x, height, width = (float(rect.get_attribute(name)) for name in ("y", "x", "height", "width"))
    return [y, x, y + height, x + width]


def expected_box(lite0, file, threshold, class_id=None, method="cam"):
    localize = camjax.make_localize_fn(lite0, method, threshold=threshold)
    images = camjax.load_images(file, size=lite0.input_size)
    return np.asarray(localize(images, None if class_id is None else np.array([class_id])).boxes[0, 0])


def in_words(box, file):
    height, width = load_image(file).shape[:2]
    edges = np.rint(box * (height, width, height, width)).astype(int)
    return "top {}, left {}, bottom {}, right {}".format(*edges)


def test_a_photograph_its_class_and_its_box(page, server, lite0):
    upload(page, CAT)
    first = page.locator("#classes tbody tr").first
    expect(first).to_contain_text("Egyptian cat")
    expect(first).to_contain_text("79.1 %")
    box = expected_box(lite0, CAT, 0.2)
    np.testing.assert_allclose(drawn_box(page), box, atol=1e-6)
    expect(page.locator("#caption")).to_contain_text(in_words(box, CAT))

    # The threshold moves the box, and runs no network.
    before = runs(server)
    assert before > 0
    page.get_by_label("Threshold of the box").focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    moved = expected_box(lite0, CAT, 0.5)
    assert np.abs(moved - box).max() > 0.05
    expect(page.locator("#caption")).to_contain_text(in_words(moved, CAT))
    expect(page.locator("#threshold-value")).to_have_text("0.50")
    np.testing.assert_allclose(drawn_box(page), moved, atol=1e-6)

    # Opacity and colors ask the server nothing.
    asked = len(page.requested)
    canvas = page.locator("#main canvas")
    pixel = "canvas => [...canvas.getContext('2d').getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data]"
    jet = canvas.evaluate(pixel)
    page.get_by_label("Opacity of the map").fill("0.8")
    assert canvas.evaluate("canvas => canvas.style.opacity") == "0.8"
    page.get_by_label("Colors", exact=True).select_option("gray")
    gray = canvas.evaluate(pixel)
    assert gray[0] == gray[1] == gray[2] and jet[0] != jet[2]
    page.get_by_label("Draw the box").uncheck()
    assert page.locator("rect").count() == 0
    assert len(page.requested) == asked and runs(server) == before


def test_the_map_is_that_of_camjax(page, lite0):
    upload(page, CUP)
    page.get_by_label("Colors", exact=True).select_option("gray")
    data = page.locator("#main canvas").evaluate(
        """canvas => {
            const { width, height } = canvas;
            return [width, height, ...canvas.getContext("2d").getImageData(0, 0, width, height).data];
        }"""
    )
    width, height = data[:2]
    drawn = np.array(data[2:], np.uint8).reshape(height, width, 4)[..., 0].astype(int)
    maps = camjax.make_cam_fn(lite0, top_k=3)(camjax.load_images(CUP, size=lite0.input_size)).maps[0]
    expected = np.floor(np.clip(camjax.resize_map(maps[0], (height, width)) / maps.max(), 0, 1) * 256)
    assert np.abs(drawn - expected.clip(max=255)).max() <= 1
    assert drawn.max() > 240


def test_methods_and_classes(page, server, lite0):
    upload(page, CAT)
    page.get_by_label("gradcam", exact=True).check()
    done(page)
    expect(page.locator("#grid button")).to_have_count(6)
    page.get_by_label("Most probable classes to show").fill("1")
    page.get_by_label("Most probable classes to show").press("Enter")
    done(page)
    expect(page.locator("#grid button")).to_have_count(2)
    # A class by its name; by the keyboard alone.
    search = page.get_by_label("Another class, by its name")
    search.fill("teapot")
    search.press("Enter")
    done(page)
    expect(page.locator("#grid button")).to_have_count(4)
    expect(page.locator("#caption")).to_contain_text("teapot")
    class_id = lite0.class_names.index("teapot")
    np.testing.assert_allclose(drawn_box(page), expected_box(lite0, CAT, 0.2, class_id), atol=1e-6)
    page.locator("#grid button").filter(has_text="gradcam").filter(has_text="teapot").click()
    expect(page.locator("#caption")).to_contain_text("by gradcam")
    np.testing.assert_allclose(drawn_box(page), expected_box(lite0, CAT, 0.2, class_id, "gradcam"), atol=1e-6)
    search.fill("no such thing")
    search.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("No class of this network has “no such thing” in its name.")
    page.get_by_role("button", name="Take teapot away").click()
    done(page)
    expect(page.locator("#grid button")).to_have_count(2)
    # Another network, whose maps are finer.
    page.get_by_label("Network", exact=True).select_option("efficientnet_lite1")
    done(page)
    expect(page.locator("#classes tbody tr").first).to_contain_text("Egyptian cat")


def test_downloads(page, lite0):
    upload(page, CAT)

    def download(button):
        with page.expect_download() as started:
            page.get_by_role("button", name=button).click()
        return started.value.suggested_filename, Path(started.value.path()).read_bytes()

    name, data = download("Raw map")
    out = camjax.cam_fn(lite0, camjax.load_images(CAT, size=lite0.input_size))
    assert name == "chelsea_cam_285.npy"
    np.testing.assert_allclose(np.load(io.BytesIO(data)), out.maps[0, 0], atol=1e-3)
    name, data = download("Boxes (JSON)")
    assert name == "chelsea_boxes.json" and json.loads(data)[0]["label"] == "Egyptian cat"
    name, data = download("Boxes (CSV)")
    assert name == "chelsea_boxes.csv" and data.decode().startswith("filename,xmin,")
    name, data = download("Figure")
    with Image.open(io.BytesIO(data)) as figure:
        assert name == "chelsea_figure.png" and min(figure.size) > 300


@pytest.mark.parametrize(
    ("examples", "hint"), [(["cat"], "Drop a picture, or choose an example."), ([], "Drop a picture.")]
)
def test_examples_are_offered_where_there_are_some(browser, server, examples, hint):
    page = browser.new_page()
    start = requests.get(f"{server}/api/start").json() | {"examples": examples}
    page.route(re.compile("/api/start"), lambda route: route.fulfill(json=start))
    page.goto(server)
    page.locator("#names option").first.wait_for(state="attached", timeout=SECONDS)
    assert page.locator("#status").inner_text() == hint
    page.close()


def test_a_broken_picture(page, tmp_path):
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"torn\.jpg") as caught:
        load_image(torn)
    upload(page, torn)
    expect(page.get_by_role("alert")).to_have_text(str(caught.value).replace(str(torn), "torn.jpg"))
    upload(page, CAT)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_picture_is_dropped(page):
    transfer = page.evaluate_handle("() => new DataTransfer()")
    page.locator("#drop").evaluate(
        """async (drop, [transfer, text]) => {
            const data = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([data], "dropped.png"));
            drop.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        [transfer, base64.b64encode(CUP.read_bytes()).decode()],
    )
    expect(page.locator("#classes tbody tr").first).to_contain_text("espresso", timeout=SECONDS)


def test_two_people_at_once(browser, server):
    with new_page(browser, server) as one, new_page(browser, server) as other:
        one.locator("#file").set_input_files(CAT)
        other.locator("#file").set_input_files(CUP)
        done(one)
        done(other)
        expect(one.locator("#caption")).to_contain_text("Egyptian cat")
        expect(other.locator("#caption")).to_contain_text("espresso")
        one.get_by_label("Threshold of the box").fill("0.6")
        expect(other.locator("#threshold-value")).to_have_text("0.20")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_by_the_colors_of_the_system(browser, server, scheme):
    settings = {"viewport": {"width": 400, "height": 800}, "color_scheme": scheme}
    for path in ("/", "/results"):
        with new_page(browser, server, path, **settings) as page:
            if path == "/":
                page.get_by_role("button", name="chelsea.png").click()
                page.locator("#classes tbody tr").first.wait_for()
            else:
                page.locator("#cases li").first.wait_for()
            assert page.locator("html").evaluate("html => html.scrollWidth") == 400
            color = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
            brightness = sum(map(int, re.findall(r"\d+", color)[:3])) / 3
            assert (brightness < 60) == (scheme == "dark")


def test_the_page_of_an_evaluation(browser, server, evaluation):
    with new_page(browser, server, "/results") as page:
        cases = page.locator("#cases li")
        expect(cases).to_have_count(8)
        ious = [float(found) for found in re.findall(r"IoU (\d\.\d\d)", page.locator("#cases").inner_text())]
        assert len(ious) == 7 and ious == sorted(ious)
        expect(cases.last).to_contain_text("unreadable")
        expect(cases.first.locator("rect.predicted")).to_have_count(1)
        expect(cases.first.locator("rect.true")).to_have_count(1)
        page.get_by_label("Order").select_option("the best first")
        expect(cases.first).to_contain_text(f"IoU {max(ious):.2f}")
        page.get_by_label("Class").fill("Egyptian cat (285)")
        expect(cases).to_have_count(4)
        expect(page.get_by_role("status")).to_have_text("Pictures 1 to 4 of 4.")
        page.get_by_label("Only").select_option("not counted")
        expect(page.get_by_role("status")).to_contain_text("No picture is left")
        page.get_by_label("Class").fill("")
        expect(cases).to_have_count(1)
        page.get_by_label("Only").select_option("all pictures")
        expect(cases).to_have_count(8)
        cases.first.locator("img").click()
        page.locator("#classes tbody tr").first.wait_for()
        done(page)
        expect(page.locator("#classes tbody tr").first).to_contain_text(re.compile("Egyptian cat|espresso"))
