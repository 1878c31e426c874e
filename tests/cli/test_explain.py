import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage
from conftest import random_network
from matplotlib.backend_bases import FigureCanvasBase
from PIL import Image

import camjax
from camjax.cli import compilation_cache
from camjax.cli.class_choice import class_ids, figure_names
from camjax.cli.explain import _table
from camjax.cli.figure_file import figure_path, save_figure
from camjax.cli.main import main
from camjax.cli.network_choice import network_choice
from camjax.cli.photographs import photo_explainer
from camjax.cli.picture_files import find_pictures
from camjax.data.images import load_image, resize_image
from camjax.errors import InputError
from camjax.terminal import Console
from camjax.viz import explanation_figure
from camjax.weights.camjax_file import write_camjax_file

CAT, COFFEE = (Path(skimage.data_dir, name) for name in ("chelsea.png", "coffee.png"))
NAMES = ["tench, Tinca tinca", "crane", "tabby, tabby cat", "tiger cat", "Egyptian cat", "crane", "maillot, tank suit"]

# The command, and at its end what JAX says of its compilations.
COUNTED = """
import collections, json, sys
import jax
from camjax.cli.main import main
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event]))
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: counts.update([event]))
code = main(sys.argv[1:])
heavy = [name for name in ("tensorflow_datasets", "orbax", "grain", "matplotlib.pyplot") if name in sys.modules]
print(json.dumps({"counts": counts, "heavy": heavy, "flax": "flax" in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


def run(*args, code=None, **environment):
    """A process of its own, with 80 columns and none of JAX's and XLA's settings: programs as a user has them."""
    command = ["-c", code] if code else ["-m", "camjax.cli.main"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    return subprocess.run(
        [sys.executable, *command, *map(str, args)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**inherited, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **environment},
    )


# Programs that compile in half of the time; what is kept of them does not depend on it.
LITTLE_OPTIMIZED = {
    name: os.environ[name] for name in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS") if name in os.environ
}


@pytest.fixture(scope="module")
def starts(tmp_path_factory, weights):
    """Two starts of one command, with a cache that is empty at first: (process, files in the cache) each."""
    directory = tmp_path_factory.mktemp("starts")
    starts = []
    for i in range(2):
        words = ["explain", CAT, "--model", "small_gap", *weights, "--out", directory / f"{i}.png"]
        process = run(*words, code=COUNTED, XDG_CACHE_HOME=str(directory), **LITTLE_OPTIMIZED)
        assert process.returncode == 0, process.stderr
        starts.append((process, sorted(os.listdir(directory / "camjax" / "xla"))))
    return starts


def test_a_second_start_builds_no_network_and_says_the_same(starts):
    first, second = (json.loads(process.stderr.splitlines()[-1]) for process, _ in starts)
    assert first["flax"] and not second["flax"]
    said = [process.stdout.splitlines()[:-1] for process, _ in starts]  # the last line names the figure
    assert said[0] == said[1] and len(said[0]) > 5


def test_a_second_start_compiles_nothing(starts):
    first, second = (json.loads(process.stderr.splitlines()[-1])["counts"] for process, _ in starts)
    requests, hits, misses = (
        f"/jax/compilation_cache/{name}" for name in ("compile_requests_use_cache", "cache_hits", "cache_misses")
    )
    assert first[misses] > 0 and hits not in first
    assert second[hits] == second[requests] > 0 and misses not in second
    # All that is compiled asks the cache.
    assert second["/jax/core/compile/backend_compile_duration"] == second[requests]
    assert starts[0][1] == starts[1][1] != []


def test_explain_imports_nothing_heavy_that_it_does_not_use(starts):
    assert json.loads(starts[0][0].stderr.splitlines()[-1])["heavy"] == []


def test_explain_prints_the_top_5_of_each_photograph(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compilation_cache, "keep_compiled_programs", lambda: None)
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "two.png"
    assert main(["explain", str(CAT), str(COFFEE), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{CAT} (451 x 300 pixels)" in lines and f"{COFFEE} (600 x 400 pixels)" in lines
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines if re.match(r"\s+\d", line)]
    assert [row[0] for row in rows] == list("12345") * 2
    # Rank, class, id, probability; top, left, bottom, right.
    assert rows[0][:3] == ["1", "Egyptian cat", "285"] and rows[5][:3] == ["1", "espresso", "967"]
    top, left, bottom, right = map(int, " ".join(rows[5][4:]).split())
    # The cup's rim, and its bowl, by eye: x 170 to 405, y 15 to 180.
    assert 0 <= top < 40 and 40 < left < 180 and 180 < bottom <= 400 and 400 < right <= 600
    assert lines[-1] == f"Saved {out}"
    with Image.open(out) as picture:
        # Two columns of 3.4 inches at 150 dpi, and margins.
        assert 1020 < picture.width < 1060


@pytest.fixture(scope="module")
def network():
    """A network that compiles in a second."""
    return random_network("small_gap")


def test_the_table_says_what_localize_fn_says(network):
    photos = [load_image(CAT), load_image(COFFEE)]
    explained = list(map(photo_explainer(network, [7, 0], top_k=1, threshold=0.4), photos))
    images = np.stack([resize_image(photo, network.input_size) for photo in photos])
    expected = camjax.make_localize_fn(network, threshold=0.4, top_k=5)(images)
    probabilities = np.exp(expected.logits) / np.exp(expected.logits).sum(-1, keepdims=True)
    for i, photo in enumerate(explained):
        np.testing.assert_array_equal(photo.top.class_ids, expected.class_ids[i])
        np.testing.assert_array_equal(photo.asked.class_ids, [7, 0])
        np.testing.assert_array_equal(photo.top.ranks, [1, 2, 3, 4, 5])
        np.testing.assert_allclose(photo.top.maps, expected.maps[i], atol=1e-4)
        np.testing.assert_allclose(photo.top.boxes, expected.boxes[i], atol=1.01 / 64)
        for part in (photo.top, photo.asked):
            np.testing.assert_allclose(part.probabilities, probabilities[i, part.class_ids], rtol=1e-4)
        assert photo.asked.ranks[0] == 1 + (expected.logits[i] > expected.logits[i, 7]).sum()
        assert photo.size == photos[i].shape[:2]


def test_another_method_says_the_same_of_the_classes_and_where_by_its_own_maps(network):
    photos, seen = [load_image(CAT), load_image(COFFEE)], []
    options = {"top_k": 1, "threshold": 0.4}
    by_cam = list(map(photo_explainer(network, [7, 0], **options), photos))
    found = list(
        map(photo_explainer(network, [7, 0], "ablationcam", **options, progress=lambda *at: seen.append(at)), photos)
    )
    explain = camjax.explainer(network.features, network.head)
    for photo, cam, explained in zip(photos, by_cam, found, strict=True):
        for by_method, by_map in ((explained.top, cam.top), (explained.asked, cam.asked)):
            np.testing.assert_array_equal(by_method.class_ids, by_map.class_ids)
            np.testing.assert_array_equal(by_method.ranks, by_map.ranks)
            np.testing.assert_allclose(by_method.probabilities, by_map.probabilities, rtol=1e-4)
        image = resize_image(photo, network.input_size)[None]
        maps = explain(image, explained.asked.class_ids[None], "ablationcam").maps[0]
        np.testing.assert_allclose(explained.asked.maps, maps, atol=1e-4 * np.abs(maps).max())
    assert seen[-1][0] == seen[-1][1]


def test_a_large_photograph_is_shown_small_at_its_own_aspect_ratio(network):
    photo = photo_explainer(network, [], top_k=1, threshold=0.2)(resize_image(load_image(COFFEE), (900, 3000)))
    assert photo.size == (900, 3000) and photo.display.shape == (379, 1265, 3) and photo.asked is None


@pytest.mark.parametrize(
    "asked, expected",
    [
        (["2"], [2]),
        (["TABBY"], [2]),
        (["Tinca tinca", "tiger cat", "0"], [0, 3]),
        (["Maillot, Tank Suit"], [6]),
        (["1", "5", "005", "0" * 5000], [1, 5, 0]),
        ([], []),
    ],
)
def test_class_ids(asked, expected):
    assert class_ids(asked, NAMES, 7) == expected


@pytest.mark.parametrize(
    "asked, names, message",
    [
        ("7", NAMES, "classes 0..6"),
        ("-1", NAMES, "classes 0..6"),
        ("9" * 5000, NAMES, "classes 0..6"),
        ("--5", NAMES, "'--5': no class of this network has that name"),
        ("--5", None, "give ids in 0..6"),
        ("-", NAMES, "no class of this network has that name"),
        ("٣", NAMES, "no class of this network has that name"),
        ("crane", NAMES, "names 2 classes: 1 is 'crane'; 5 is 'crane'. Give the id"),
        ("cat", NAMES, "Did you mean 'tabby cat', 'tiger cat', 'Egyptian cat'?"),
        ("tinch", NAMES, "Did you mean 'tench'"),
        ("zzzz", NAMES, "no class of this network has that name"),
        ("tabby", None, "give ids in 0..6"),
    ],
)
def test_class_ids_that_are_not_clear(asked, names, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        class_ids([asked], names, 7)


@pytest.mark.parametrize("written", [{"png", "pdf", "svg", "jpg"}, pytest.param(None, marks=pytest.mark.long)])
def test_every_format_that_is_accepted_is_written(tmp_path, written):
    """In the short case some of them, and none that is refused."""
    figure = explanation_figure(
        [load_image(CAT)[::9, ::9]], [np.eye(7)[None]], [np.array([[0, 0, 0.5, 0.5]])], [["cat"]], [[0.5]], dpi=40
    )
    refused = []
    for suffix in FigureCanvasBase.get_supported_filetypes():
        path = tmp_path / f"g.{suffix}"
        try:
            figure_path([CAT], path, "cam")
        except InputError as error:
            assert f"--out {path}: .{suffix} cannot be written here (" in str(error) and not path.exists()
            refused.append(suffix)
            continue
        if written is None or suffix in written:
            save_figure(figure, path)
            assert path.stat().st_size > 1000
    assert set(refused) <= {"pgf", "webp", "avif"}  # they need LaTeX, or libraries that Pillow may lack
    assert ("pgf" in refused) == (shutil.which("xelatex") is None)


def test_a_row_of_the_table_stands_on_one_line(network):
    photo = photo_explainer(network, [], top_k=1, threshold=0.2)(load_image(CAT))
    console = Console(file=io.StringIO(), width=70)
    console.print(_table(photo, [f"a class whose long name takes several lines of the table {i}" for i in range(10)]))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    ends = [words for words in lines if any("%" in word for word in words)]
    assert len(ends) == 5 and len(lines) > 10
    for rank, words in enumerate(ends, start=1):
        box = words[words.index(next(word for word in words if "%" in word)) + 1 :]
        assert words[0] == str(rank) and (len(box) == 4 or box == ["none"])


def test_names_that_cannot_be_drawn_become_ids_in_the_figure():
    private = "\ue777\U000f1234"  # no font has characters of private use at these places
    with pytest.warns(UserWarning, match="the characters \ue777 \U000f1234: the figure has the ids of these classes"):
        assert figure_names([4, 3, 4], ["", "", "", private, "Möwe"]) == {4: "Möwe", 3: "class 3"}
    assert figure_names([3], None) == {3: "class 3"}


def test_where_the_figure_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert figure_path([CAT], None, "cam") == Path("chelsea_cam.png")
    assert figure_path([CAT, COFFEE], None, "gradcam++") == Path("gradcam++.png")
    assert figure_path([CAT], tmp_path / "a.PDF", "cam") == tmp_path / "a.PDF"


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "no image given"),
        ([CAT] * 51, "51 images: one figure holds at most 50 rows. With --separate"),
        ([CAT, "--out", "no/such/directory/a.png"], "no/such/directory does not exist"),
        ([CAT, "--out", "."], "--out . is a directory"),
        ([CAT, "--out", "a.xyz"], "expected a file that ends in .png"),
        ([CAT, "--out", CAT], "is one of the images"),
        ([CAT, "--top-k", "0"], "--top-k: 0 maps"),
        ([CAT, "--threshold", "1"], "--threshold 1.0"),
        ([CAT, "--method", "gradcam+"], "expected one of cam, cam_ten_crop, gradcam, gradcam++"),
        (["no_such.jpg"], "no_such.jpg does not exist"),
        ([Path(skimage.data_dir, "README.txt")], "not an image"),
        (["."], "no images in this folder or below it"),
        ([CAT, "--dpi", "0"], "--dpi 0: expected 20..1200"),
        ([CAT, "--dpi", "100000"], "--dpi 100000: expected 20..1200"),
        ([CAT, "--columns", "0"], "--columns 0: expected at least 1"),
        ([CAT, "--alpha", "1.5"], "--alpha 1.5: expected"),
        ([CAT, "--colormap", "jett"], "--colormap 'jett': expected a colormap of matplotlib. Did you mean jet"),
        ([CAT, "--scale", "some"], "--scale 'some': expected picture, all, each, or a number above 0"),
        ([CAT, "--scale", "inf"], "--scale 'inf'"),
        ([CAT, "--separate", "--scale", "all"], "--scale all is for one figure"),
        ([CAT, "--separate", "--out", CAT], "is a file; expected a folder"),
        ([CAT, "--separate", "--out", CAT.parent], "chelsea.png is in this folder"),
        ([CAT, "--model", "efficientnet_light0"], "Did you mean efficientnet_lite0"),
        ([CAT, "--model", "resnet50"], "weights"),
        ([CAT, "--weights", "no_such.pth"], "no_such.pth"),
        ([CAT, "--weights", CAT], "chelsea.png"),
    ],
)
def test_bad_input_is_described_and_nothing_is_written(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compilation_cache, "keep_compiled_programs", lambda: None)
    assert main(["explain", *map(str, args)]) == 1
    output = capsys.readouterr()
    assert message in output.err and output.err.startswith("camjax: ") and output.out == ""
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    """Words for the small network, whose file says what it is of."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    write_camjax_file(network, path, version="0")
    return ["--weights", str(path)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder has `photos`: two pictures of one name, a panorama, and two files that are no pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compilation_cache, "keep_compiled_programs", lambda: None)
    for name, size in (("b/1.png", (20, 30)), ("a/1.png", (30, 20)), ("a/wide.jpg", (10, 80))):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(resize_image(load_image(CAT), size)).save(Path("photos", name))
    Path("photos", "a", "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    Path("photos", "notes.txt").write_text("not a picture")
    return tmp_path


def test_every_picture_of_a_folder_but_the_torn_one(weights, folder, capsys):
    words = ["explain", "photos", str(COFFEE), *weights, "--classes", "7", "2"]
    assert main([*words, "--separate", "--out", "out", "--save-maps", "--json", "--format", "svg", "--no-box"]) == 1
    output = capsys.readouterr()
    found = json.loads(output.out)
    assert {name: found[name] for name in ("command", "model", "weights", "threshold", "figure")} == {
        "command": "explain",
        "model": "small_gap",
        "weights": weights[1],
        "threshold": 0.2,
        "figure": None,
    }
    torn, *read = sorted(found["images"], key=lambda image: "error" not in image)
    assert torn["file"] == "photos/a/torn.jpg" and torn["error"].startswith("photos/a/torn.jpg: ")
    # Names begin below the folder that all have in common, the root.
    assert [image["file"] for image in read] == [
        *("photos/a/1.png", "photos/a/wide.jpg", "photos/b/1.png"),
        str(COFFEE),
    ]
    lines = output.err.splitlines()
    assert lines == [
        f"camjax: {torn['error']}",
        "camjax: 1 of 5 images could not be read, see above. The others are done.",
    ]
    for image in read:
        height, width = image["size"]
        assert load_image(image["file"]).shape[:2] == (height, width)
        rows = image["classes"]
        assert [row["rank"] for row in rows[:5]] == [1, 2, 3, 4, 5] and {2, 7} <= {row["id"] for row in rows}
        assert all(row["name"] is None and row["method"] == "cam" and row["valid"] for row in rows)
        assert sum(row["probability"] for row in rows) <= 1 + 1e-6
        figure = Path(image["figure"])
        assert figure.parts[0] == "out" and figure.name == Path(image["file"]).name + ".svg"
        assert ">class 7<" in figure.read_text() and "stroke-dasharray" not in figure.read_text()
        with np.load(image["maps"]["cam"]) as maps:
            assert maps["class_ids"].tolist() == [7, 2] and maps["names"].tolist() == ["class 7", "class 2"]
            assert maps["maps"].dtype == np.float32 and maps["maps"].shape[0] == 2
            assert maps["size"].tolist() == image["size"] and maps["method"] == "cam"
            by_id = {row["id"]: row for row in rows}
            for i, class_id in enumerate((7, 2)):
                pixels = maps["boxes"][i] * np.tile(image["size"], 2)
                assert np.rint(pixels).astype(int).tolist() == by_id[class_id]["box"]
                assert maps["probabilities"][i] == np.float32(by_id[class_id]["probability"])
    files = [path for path in Path("out").rglob("*") if path.is_file()]
    assert len(files) == len(read) * 2


def test_one_figure_of_a_folder_goes_on_past_what_cannot_be_read(weights, folder, capsys):
    assert main(["explain", "photos", "nowhere.jpg", *weights, "--out", "all.pdf"]) == 1
    output = capsys.readouterr()
    assert "photos/b/1.png (30 x 20 pixels)" in output.out and output.out.endswith("Saved all.pdf\n")
    assert "nowhere.jpg does not exist" in output.err and "camjax: 2 of 5 images could not be read" in output.err
    # With JSON alone no figure is made, and none limits the number of pictures.
    assert main(["explain", *["photos/a/torn.jpg"] * 60, "--json"]) == 1
    output = capsys.readouterr()
    assert len(json.loads(output.out)["images"]) == 60 and "60 of 60 images could not be read" in output.err
    assert sorted(os.listdir()) == ["all.pdf", "photos"]


def test_names_of_pictures(folder):
    def names(*given):
        return [picture.name for picture in find_pictures([Path(path) for path in given])]

    assert names("photos") == ["a/1.png", "a/torn.jpg", "a/wide.jpg", "b/1.png"]
    assert names("photos/b/1.png", "photos/a/wide.jpg") == ["b/1.png", "a/wide.jpg"]
    assert names("photos/b/1.png") == names("photos/b/../b/1.png") == ["1.png"]
    assert names("photos/b", "photos/a") == ["b/1.png", "a/1.png", "a/torn.jpg", "a/wide.jpg"]
    assert names(".", "photos/a/1.png")[0] == "photos/a/1.png"


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_figure_is_the_same_bytes_each_time_and_its_text_is_text(suffix, tmp_path):
    for name in ("first", "second"):
        figure = explanation_figure(
            [np.zeros((9, 9, 3), np.uint8)], [np.eye(2)[None]], [np.eye(4)[:1]], [["Möwe"]], [[1]]
        )
        save_figure(figure, tmp_path / f"{name}.{suffix}")
    written = (tmp_path / f"first.{suffix}").read_bytes()
    assert written == (tmp_path / f"second.{suffix}").read_bytes() and b"Date" not in written
    if suffix == "svg":
        assert "Möwe" in written.decode()
    if suffix == "pdf":
        assert b"/FontFile2" in written and b"/Type3" not in written


def test_a_full_disk_is_said_with_the_name_of_the_figure(tmp_path):
    figure = explanation_figure([load_image(CAT)], [np.eye(2)[None]], [np.eye(4)[:1]], [["cat"]], [[1]])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"too large: '.*a\.png'"):
            save_figure(figure, tmp_path / "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []
    figure.set_dpi(20_000)
    with pytest.raises(InputError, match=r"a\.png: the figure would have \d+ x \d+ pixels; expected at most"):
        save_figure(figure, tmp_path / "a.png")


def test_a_file_by_convert_says_what_it_is_of(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compilation_cache, "keep_compiled_programs", lambda: None)
    model = random_network("small_gap", 3, pool="gmp")
    model.class_names = ("Katze", "cup", "gato")
    exported, out = tmp_path / "three.safetensors", tmp_path / "cat.png"
    write_camjax_file(model, exported, version="0")
    for more in ([], ["--model", "small_gap"]):
        assert main(["explain", str(CAT), "--weights", str(exported), "--out", str(out), *more]) == 0
        printed = capsys.readouterr().out
        assert all(name in printed for name in model.class_names)
    assert main(["explain", str(CAT), "--weights", str(exported), "--out", str(out), "--model", "resnet18"]) == 1
    error = capsys.readouterr().err
    assert "(camjax's small_gap) does not fit the model" in error and error.count("\n") < 30


def test_what_model_and_weights_ask_for_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = random_network("small_gap")
    for name in ("small_gap", "nowhere:my_net"):
        own.created_as = {**own.created_as, "name": name}
        write_camjax_file(own, f"{name[0]}.safetensors", version="0")
    Path("run").mkdir()
    Path("other.pth").touch()
    assert network_choice(None, None) == ("efficientnet_lite0", None)
    assert network_choice("resnet18", "s.safetensors") == ("resnet18", "s.safetensors")
    assert network_choice(None, "s.safetensors") == ("small_gap", "s.safetensors")
    assert network_choice(None, "other.pth") == ("efficientnet_lite0", "other.pth")
    assert network_choice(None, "run") == ("run/", None)
    with pytest.raises(ValueError, match=r"say which by .*--model googlenet_gap, .*--model vgg16_gap"):
        network_choice(None, "cam-release")
    # A file does not decide which code runs.
    with pytest.raises(ValueError, match=r"n\.safetensors is of nowhere:my_net, a network of your own\. Name it"):
        network_choice(None, "n.safetensors")


def test_words_that_do_not_parse_exit_with_2(capsys):
    with pytest.raises(SystemExit) as error:
        main(["explain", str(CAT), "--top-k", "many"])
    assert error.value.code == 2 and "--top-k" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"camjax {camjax.__version__}\n"


@pytest.mark.parametrize("args", [[], ["--help"]])
def test_help(args, capsys):
    with pytest.raises(SystemExit) as end:
        main(args)
    output = capsys.readouterr().out
    assert end.value.code == 0 and "explain" in output and "models" in output and "--version" in output


def test_bad_input_and_caches_in_a_process_of_its_own(tmp_path):
    """The user's cache stands, one that cannot be written is reported, and so is a picture that is broken."""
    broken, a_file = tmp_path / "broken.png", tmp_path / "file"
    broken.write_bytes(CAT.read_bytes()[:5000])
    a_file.write_text("")
    code = """
import os, sys, jax, camjax.cli.compilation_cache as c
from camjax.cli.main import main
c.keep_compiled_programs()
print(jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs)
jax.config.update("jax_compilation_cache_dir", None)
os.environ["XDG_CACHE_HOME"] = sys.argv[2]
c.keep_compiled_programs()
print(jax.config.jax_compilation_cache_dir)
jax.config.update("jax_compilation_cache_dir", sys.argv[3])
del os.environ["XDG_CACHE_HOME"]  # where Matplotlib keeps its own
sys.exit(main(["explain", sys.argv[1]]))
"""
    own = str(tmp_path / "own")
    process = run(broken, a_file, own, code=code, JAX_COMPILATION_CACHE_DIR=own, XDG_CACHE_HOME=str(tmp_path))
    assert process.returncode == 1
    assert process.stdout.split() in ([own, seconds, "None"] for seconds in ("0", "0.0"))
    assert process.stderr.count("\n") == 2, process.stderr
    of_cache, of_picture = process.stderr.splitlines()
    assert of_cache.startswith("camjax: compiled programs cannot be kept in ") and str(a_file) in of_cache
    assert of_picture.startswith(f"camjax: {broken}: ")
