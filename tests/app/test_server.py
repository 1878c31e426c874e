"""The server of the page, as a browser or a stranger talks to it: a real one, without a browser."""

import base64
import io
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
import requests
import skimage
from conftest import random_network, status_without_a_client
from PIL import ExifTags, Image

import camjax
from camjax.app import networks as networks_module
from camjax.app import pictures as pictures_module
from camjax.app.cache import Cache
from camjax.app.networks import LEFT, Busy, Left, Networks
from camjax.app.pictures import Gone, Pictures
from camjax.boxes import boxes_from_maps
from camjax.data.decoding import ImageError
from camjax.data.images import load_image, resize_image
from camjax.errors import InputError

CAT = Path(skimage.__file__).parent / "data" / "chelsea.png"


@pytest.fixture(scope="module")
def network():
    model = random_network("small_gap", 3)
    model.class_names = ("cat", "cup, mug", "<b>dog</b>")
    return model


@pytest.fixture(scope="module")
def server(network):
    """The address of a running server, whose networks are one and another that can't be loaded."""
    pytest.importorskip("uvicorn", reason='the server of camjax app needs pip install "camjax[app]"')
    from camjax.app.server import Content, Server

    def fail():
        raise InputError("runs/torn is damaged.")

    listening = socket.create_server(("127.0.0.1", 0))
    content = Content({"small": lambda: network, "torn": fail}, {"chelsea.png": CAT.read_bytes})
    running = Server(content, "127.0.0.1")
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    running.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def picture(server):
    answer = requests.post(f"{server}/api/pictures", params={"name": "cat.png"}, data=CAT.read_bytes())
    assert answer.status_code == 200, answer.text
    assert answer.json()["width"], answer.json()["height"] == (451, 300)
    return answer.json()["picture"]


def ask(server, path, picture, **query):
    return requests.get(f"{server}/api/{path}", params={"picture": picture, "network": 0, "method": "cam", **query})


def shares(box):
    return [0] * 4 if box is None else box["shares"]


def runs(server):
    return requests.get(f"{server}/api/status").json()["runs"]


def test_maps_and_boxes_are_those_of_camjax(server, picture, network):
    image = resize_image(load_image(CAT), network.input_size)[None]
    for method in ("cam", "backprop"):
        expected = camjax.make_localize_fn(network, method, top_k=3)(image)
        answer = ask(server, "explain", picture, method=method, top_k=3).json()
        ids = [one["id"] for one in answer["maps"]]
        assert ids == np.asarray(expected.class_ids[0]).tolist() == [one["id"] for one in answer["classes"]]
        assert [one["rank"] for one in answer["classes"]] == [1, 2, 3]
        assert sum(one["probability"] for one in answer["classes"]) == pytest.approx(1, abs=1e-6)
        for i, one in enumerate(answer["maps"]):
            values = np.frombuffer(base64.b64decode(one["values"]), np.float32).reshape(one["shape"])
            np.testing.assert_allclose(values, expected.maps[0, i], atol=1e-5)
            np.testing.assert_allclose(shares(one["box"]), expected.boxes[0, i], atol=1e-6)


def test_another_threshold_runs_no_network(server, picture, network):
    boxes_fn = jax.jit(boxes_from_maps, static_argnums=1)
    first = ask(server, "explain", picture, top_k=2).json()["maps"]
    before = runs(server)
    ids = [one["id"] for one in first]
    for threshold in (0.1, 0.5, 0.9):
        boxes = ask(server, "boxes", picture, **{"class": ids, "threshold": threshold}).json()["cam"]
        for one, box in zip(first, boxes, strict=True):
            values = np.frombuffer(base64.b64decode(one["values"]), np.float32).reshape(one["shape"])
            expected, valid = boxes_fn(values, network.input_size, threshold)
            assert (box is not None) == bool(valid)
            np.testing.assert_allclose(shares(box), expected, atol=1e-6)
    assert ask(server, "explain", picture, top_k=2, threshold=0.4).status_code == 200
    assert runs(server) == before


def test_downloads(server, picture, network):
    shown = {"class": [2, 0], "threshold": 0.3}
    values = np.load(io.BytesIO(ask(server, "map.npy", picture, **shown).content))
    expected = camjax.cam_fn(network, resize_image(load_image(CAT), network.input_size)[None], np.array([[2]]))
    np.testing.assert_allclose(values, expected.maps[0, 0], atol=1e-5)
    rows = ask(server, "boxes.json", picture, method=["cam", "gradcam"], **shown).json()
    assert [row["method"] for row in rows] == ["cam", "cam", "gradcam", "gradcam"]
    assert [row["class_id"] for row in rows] == [2, 0, 2, 0]
    assert {(row["filename"], row["width"], row["height"]) for row in rows} == {("cat.png", 451, 300)}
    lines = ask(server, "boxes.csv", picture, **shown).text.splitlines()
    assert len(lines) == 3 and lines[0].startswith("filename,xmin,ymin,xmax,ymax,label,")
    box = ask(server, "boxes", picture, **shown).json()["cam"][1]
    ymin, xmin, ymax, xmax = np.rint(np.array(shares(box)) * (300, 451, 300, 451)).astype(int)
    assert box["pixels"] == [ymin, xmin, ymax, xmax]
    assert lines[2].split(",")[1:5] == [str(edge) for edge in (xmin, ymin, xmax - 1, ymax - 1)]
    looks = {"colormap": "viridis", "opacity": 0.25, "scale": "each", "box": 0}
    for methods in (["cam"], ["cam", "gradcam"]):
        figure = ask(server, "figure.png", picture, method=methods, **looks, **shown)
        with Image.open(io.BytesIO(figure.content)) as image:
            assert image.format == "PNG" and min(image.size) > 300


def test_boxes_of_a_turned_picture_are_in_its_stored_pixels(server, picture):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the stored picture is turned to the right to look at it
    Image.open(CAT).rotate(90, expand=True).save(file, "PNG", exif=exif)
    turned = requests.post(f"{server}/api/pictures?name=turned.png", data=file.getvalue()).json()
    assert (turned["width"], turned["height"]) == (451, 300)
    shown = {"class": 1, "threshold": 0.5}
    (upright,), (stored,) = (ask(server, "boxes.json", key, **shown).json() for key in (picture, turned["picture"]))
    assert (stored["width"], stored["height"]) == (300, 451)
    assert [stored[edge] for edge in ("xmin", "ymin", "xmax", "ymax")] == [
        *(upright["ymin"], 450 - upright["xmax"], upright["ymax"], 450 - upright["xmin"])
    ]


def test_probabilities_of_a_network_of_several_labels(network):
    several = random_network("small_gap", 3)
    several.multi_label = True
    logits = np.array([0, 1, -2], np.float32)
    for model, expected in ((several, 1 / (1 + np.exp(-logits))), (network, np.exp(logits) / np.exp(logits).sum())):
        offered = Networks({"it": lambda model=model: model}, Pictures())[0]
        np.testing.assert_allclose(offered.probabilities(logits), expected, rtol=1e-6)


def test_a_broken_picture_has_the_sentence_of_the_command_line(server, tmp_path):
    for name, data in {"a.jpg": b"", "b.png": CAT.read_bytes()[:5000], "c.txt": b"no image"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError) as caught:
            load_image(tmp_path / name)
        answer = requests.post(f"{server}/api/pictures", params={"name": name}, data=data)
        assert answer.status_code == 400
        assert answer.json()["error"] == str(caught.value).replace(f"{tmp_path}/", "")


def test_limits_of_uploads(server, monkeypatch):
    monkeypatch.setattr(pictures_module, "MAX_BYTES", 1 << 20)
    url = f"{server}/api/pictures?name=big.png"
    answer = requests.post(url, data=b"x" * (1 << 21))
    assert answer.status_code == 400 and "big.png: 2.0 MiB; expected at most 1 MiB" in answer.json()["error"]
    # Without a length, in pieces.
    answer = requests.post(url, data=iter([b"x" * (1 << 19)] * 4))
    assert answer.status_code == 400 and "expected at most 1 MiB" in answer.json()["error"]
    file = io.BytesIO()
    Image.new("1", (8000, 7000)).save(file, "PNG")
    answer = requests.post(url, data=file.getvalue())
    assert (
        answer.status_code == 400 and "big.png: 8000 x 7000 pixels, more than the 50,000,000" in answer.json()["error"]
    )


def test_an_upload_that_the_browser_breaks_off_is_no_bug():
    """The terminal shows no traceback: the application itself handles what the stream of the request raises."""
    server = pytest.importorskip("camjax.app.server")
    page = server._Page(server.Content({}), Networks({}, Pictures()))
    assert status_without_a_client(server._application(page, "localhost"), "/api/pictures") == 400


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"network": 7}, "network 7: expected one of 0..1."),
        ({"network": 1}, "runs/torn is damaged."),
        ({"network": "0x"}, "network is '0x': expected a whole number."),
        ({"method": "camm"}, "method 'camm': expected one of .* Did you mean 'cam'?"),
        ({"method": []}, "no method: choose at least one."),
        ({"class": 3}, "class 3: out of range, the network has classes 0..2."),
        ({"class": -1}, "class is '-1'"),
        ({"top_k": 11}, "top_k=11"),
        ({"threshold": "nan"}, "threshold is 'nan'"),
        ({"threshold": 1}, "threshold=1"),
    ],
)
def test_questions_that_have_no_answer(server, picture, query, message):
    answer = ask(server, "explain", picture, **query)
    assert answer.status_code == 400
    assert re.search(message, answer.json()["error"])


def test_a_picture_that_is_not_kept_is_asked_for_again(server):
    assert ask(server, "explain", "0" * 64).status_code == 410


def test_only_the_page_itself_is_answered(server, picture):
    port = server.rpartition(":")[2]

    def status(path="/api/start", method="GET", **headers):
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(method, server + path, headers=given).status_code

    # DNS rebinding: the browser believes that the page is of evil.example.
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
        assert status(Host=host) == 403
    for host in (f"127.0.0.1:{port}", f"LOCALHOST:{port}", f"[::1]:{port}", socket.gethostname()):
        assert status(Host=host) == 200
    # Another page in the same browser.
    upload = {"path": "/api/pictures?name=a", "method": "POST"}
    assert status(**upload, Origin="http://evil.example") == status(**upload, Origin="null") == 403
    assert status(**upload, Origin="http://127.0.0.1:1") == 403
    assert status(**upload, Origin=server) == 400  # answered: an empty file is no image
    assert status(Sec_Fetch_Site="cross-site") == status(Sec_Fetch_Site="same-site") == 403
    assert status(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 403
    assert status("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 200  # a link to the page
    assert status(Sec_Fetch_Site="same-origin") == 200


def test_no_other_file_of_the_machine_is_given_away(server):
    for path in ("../server.py", "..%2fserver.py", "%2e%2e/server.py", "/etc/passwd", "picture.html"):
        connection = socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2])))
        with connection:
            connection.sendall(f"GET /static/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert connection.makefile("rb").readline().split()[1] == b"404"


def test_pages_are_whole_and_name_no_other_place(server):
    for path in ("/", "/results"):
        page = requests.get(server + path)
        assert "default-src 'none'" in page.headers["content-security-policy"]
        texts = [page.text]
        for part in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
            texts.append(requests.get(server + part).text)
        texts.append(requests.get(f"{server}/static/common.js").text)
        assert len(texts) == 5
        addresses = {address for text in texts for address in re.findall(r"https?://[^\s\"'`]+", text)}
        assert addresses == {"http://www.w3.org/2000/svg"}  # the name of SVG, which no browser opens
        for label in re.findall(r'<label[^>]* for="([^"]+)"', page.text):
            assert f'id="{label}"' in page.text
    assert "server" not in page.headers


def test_a_bug_is_called_one(server, picture, monkeypatch):
    monkeypatch.setattr(Networks, "logits", lambda *_: 1 / 0)
    answer = ask(server, "explain", picture)
    assert answer.status_code == 500 and "ZeroDivisionError: this is a bug." in answer.json()["error"]


def test_several_people_at_once_compute_a_map_once(network):
    pictures = Pictures()
    asked = Networks({"small": lambda: network}, pictures)
    keys = [pictures.add(name, CAT.read_bytes()) for name in ("a.png", "b.png")]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: asked.maps(keys[i % 2], 0, "gradcam", [0, 1]), range(16)))
    assert asked.runs == 4  # two pictures, two classes
    for maps in found:
        np.testing.assert_array_equal(maps[0].values, found[0][0].values)


def test_nothing_is_computed_for_one_who_left(network):
    pictures = Pictures()
    asked = Networks({"small": lambda: network}, pictures)
    key = pictures.add("a.png", CAT.read_bytes())
    seen: list[str] = []
    token = LEFT.set(lambda: seen.append(asked.working) or len(seen) == 4)
    try:
        with pytest.raises(Left):
            asked.maps(key, 0, "scorecam", [0])
    finally:
        LEFT.reset(token)
    assert seen[:3] == [""] * 3 and re.fullmatch(r"scorecam: \d+ of \d+ changed copies of a picture seen", seen[3])
    assert asked.working == "" and len(asked.maps(key, 0, "cam", [0])) == 1
    asked.stop()
    with pytest.raises(Left, match="camjax app ends"):
        asked.maps(key, 0, "cam", [1])


def test_who_comes_when_too_many_wait_is_told_so(network, monkeypatch):
    monkeypatch.setattr(networks_module, "MAX_WAITING", 1)
    pictures = Pictures()
    asked = Networks({"small": lambda: network}, pictures)
    asked[0]
    with asked._turn(), pytest.raises(Busy, match="try again"):
        asked.logits(pictures.add("a.png", CAT.read_bytes()), 0)


def test_a_cache_keeps_what_was_used_last():
    cache: Cache[str] = Cache(10)
    for key in "abc":
        cache.put(key, key.upper(), 4)
    assert [cache.get(key) for key in "abc"] == [None, "B", "C"]
    assert cache.get("b") == "B"
    cache.put("d", "D", 4)
    assert [cache.get(key) for key in "bcd"] == ["B", None, "D"]
    cache.put("e", "E", 100)
    assert [cache.get(key) for key in "bde"] == [None, None, "E"]
    cache.put("e", "e", 2)
    cache.put("f", "F", 8)
    assert [cache.get(key) for key in "ef"] == ["e", "F"]


def test_pictures_that_are_not_kept_are_gone(monkeypatch):
    monkeypatch.setattr(pictures_module, "_KEPT_BYTES", 300_000)
    pictures = Pictures()
    first, second = (pictures.add(name, CAT.read_bytes()) for name in ("a.png", "b.png"))
    assert pictures[second].size == (300, 451)
    with pytest.raises(Gone):
        pictures[first]
