"""Downloads from a real server on this machine, which cuts connections, changes files, and answers with errors."""

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import camjax
from camjax.weights.download import FetchError
from camjax.weights.errors import WeightsError
from camjax.weights.fetch import cache_directory, fetch


def npz(seed: int, size: int) -> bytes:
    """A file of weights, of about this size."""
    buffer = io.BytesIO()
    np.savez(buffer, a=np.random.default_rng(seed).integers(0, 255, size, np.uint8))
    return buffer.getvalue()


CONTENT, OTHER, SHORT = npz(0, 3_000_000), npz(1, 3_000_000), npz(1, 500_000)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


# The beginning of a process that fetches, and nothing else: most of its time went into importing JAX, which
# camjax/__init__.py does, and camjax.weights.fetch does not need.
LIGHT = (
    "import sys, types; package = types.ModuleType('camjax'); "
    f"package.__path__ = {[str(Path(camjax.__file__).parent)]}; sys.modules['camjax'] = package"
)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server(ThreadingHTTPServer):
    """What the next answers are like; `requests` are the headers of the GETs that came, `heads` counts the HEADs."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files = {}
        self.requests, self.heads = [], 0
        self.cuts = []  # for each answer to come, after how many bytes of its body the connection is cut
        self.status = None
        self.etag = True
        self.last_modified = None
        self.ranges = True
        self.heeds_if_range = True
        self.tells_length = True
        self.reason = None

    @property
    def ranges_asked(self):
        return [headers.get("Range") for headers in self.requests]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.server.heads += 1
        self.answer(body=False)

    def do_GET(self):
        self.server.requests.append(dict(self.headers))
        self.answer(body=True)

    def answer(self, body):
        server = self.server
        path = self.path.partition("?")[0]
        hub = "/resolve/" in path
        content = server.files.get(path)
        if server.status or content is None:
            self.send_response(server.status or 404, server.reason)
            if hub:  # how the Hub says what is missing
                missing = "EntryNotFound" if path.split("/resolve/")[0] in server.files else "RepoNotFound"
                self.send_header("X-Error-Code", missing)
                self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        etag = f'"{digest(content)}"'
        first = 0
        asked = self.headers.get("Range")
        same = not server.heeds_if_range or self.headers.get("If-Range") in (etag, server.last_modified)
        if asked and server.ranges and same:
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
        if first and first >= len(content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if server.etag:
            self.send_header("ETag", etag)
        if server.last_modified:
            self.send_header("Last-Modified", server.last_modified)
        if hub:
            self.send_header("X-Repo-Commit", COMMIT)
        if server.tells_length:
            self.send_header("Content-Length", str(len(content) - first))
        else:
            self.send_header("Connection", "close")  # the body ends where the connection does
        self.end_headers()
        if body:
            cut = server.cuts.pop(0) if server.cuts else None
            self.wfile.write(content[first:] if cut is None else content[first : first + cut])
            self.close_connection = cut is not None or not server.tells_length


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def cached() -> list[str]:
    """Names of what lies in the cache."""
    return sorted(path.name for path in cache_directory().rglob("*") if path.is_file())


def test_a_file_is_fetched_once_and_then_without_the_network(server):
    server.files = {"/a/net.npz": CONTENT}
    path = fetch(f"{server.url}/a/net.npz?download=1")
    assert path.read_bytes() == CONTENT and path.name == "net.npz"
    assert cache_directory() in path.parents
    server.status = 500
    assert fetch(f"{server.url}/a/net.npz?download=1") == path
    assert server.ranges_asked == [None]
    assert cached() == ["net.npz", "net.npz.lock"]


def test_files_of_one_name_do_not_meet(server):
    server.files = {"/a/net.npz": CONTENT, "/b/net.npz": OTHER}
    paths = [fetch(f"{server.url}/{folder}/net.npz") for folder in "ab"]
    assert [path.read_bytes() for path in paths] == [CONTENT, OTHER]


def test_a_cut_connection_is_taken_up_where_it_broke(server):
    server.files = {"/net.npz": CONTENT}
    server.cuts = [1_048_576, 700_001]  # of the second piece, ten whole blocks of 65536 bytes count
    assert fetch(f"{server.url}/net.npz").read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=1048576-", "bytes=1703936-"]
    assert {headers.get("If-Range") for headers in server.requests[1:]} == {f'"{digest(CONTENT)}"'}
    assert cached() == ["net.npz", "net.npz.lock"]


def broken_off(server, after=1_048_576):
    """A download of /net.npz that broke off: what came first, then an answer without anything."""
    server.files = {"/net.npz": CONTENT}
    server.cuts = [after, 0]
    with pytest.raises(FetchError, match=rf"broke off\. {after} bytes of it are here, and the next call resumes"):
        fetch(f"{server.url}/net.npz")
    assert cached() == ["net.npz.lock", "net.npz.part", "net.npz.part.json"]
    server.requests.clear()


def test_the_next_call_goes_on(server):
    broken_off(server)
    assert fetch(f"{server.url}/net.npz").read_bytes() == CONTENT
    assert server.ranges_asked == ["bytes=1048576-"]


def test_a_last_modified_date_tells_versions_too(server):
    server.etag, server.last_modified = False, formatdate(0, usegmt=True)
    broken_off(server)
    assert fetch(f"{server.url}/net.npz").read_bytes() == CONTENT
    assert server.requests[0]["If-Range"] == server.last_modified


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_another_version_starts_over(server, heeds_if_range):
    broken_off(server)
    server.files, server.heeds_if_range = {"/net.npz": OTHER}, heeds_if_range
    assert fetch(f"{server.url}/net.npz").read_bytes() == OTHER
    assert server.ranges_asked == ["bytes=1048576-"] + ([] if heeds_if_range else [None])


def test_a_file_that_became_shorter_starts_over(server):
    broken_off(server)
    server.files, server.heeds_if_range = {"/net.npz": SHORT}, False
    assert fetch(f"{server.url}/net.npz").read_bytes() == SHORT


def test_a_server_without_ranges_starts_over(server):
    broken_off(server)
    server.ranges = False
    assert fetch(f"{server.url}/net.npz").read_bytes() == CONTENT


def test_without_a_version_nothing_is_patched_together(server):
    server.files, server.etag = {"/net.npz": CONTENT}, False
    server.cuts = [1_048_576]
    with pytest.raises(FetchError, match="broke off"):
        fetch(f"{server.url}/net.npz")
    server.files = {"/net.npz": OTHER}
    assert fetch(f"{server.url}/net.npz").read_bytes() == OTHER
    assert server.ranges_asked == [None, None]


@pytest.mark.parametrize("damage", ["", "[]", '{"validator": 1}', None])
def test_a_part_of_an_unknown_version_is_not_used(server, damage):
    broken_off(server)
    (record,) = cache_directory().rglob("*.part.json")
    record.unlink() if damage is None else record.write_text(damage)
    assert fetch(f"{server.url}/net.npz").read_bytes() == CONTENT
    assert server.ranges_asked == [None]


@pytest.mark.parametrize("status", [404, 403, 500, 206, 416])
def test_an_answer_of_another_kind_is_told(server, status):
    server.status = status
    with pytest.raises(FetchError, match=rf"^{server.url}/gone\.npz: the server answers {status} [\w ]+\.$"):
        fetch(f"{server.url}/gone.npz")
    server.status, server.files = None, {"/gone.npz": CONTENT}
    assert fetch(f"{server.url}/gone.npz").read_bytes() == CONTENT


def test_an_error_leaves_what_came_before(server):
    broken_off(server)
    server.status = 500
    with pytest.raises(FetchError, match="answers 500"):
        fetch(f"{server.url}/net.npz")
    server.status = None
    fetch(f"{server.url}/net.npz")
    assert server.ranges_asked[-1] == "bytes=1048576-"


def test_no_network_is_one_plain_sentence(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"http://127.0.0.1:{free.getsockname()[1]}/net.npz"
        with pytest.raises(FetchError) as caught:
            camjax.load_model("resnet18", weights=address)
    message = str(caught.value)
    assert message.startswith(f"{address}: cannot be reached; is there a network? (") and "\n" not in message
    assert "object at" not in message and len(message) < 200
    with pytest.raises(FetchError, match=r"is there a network\? \(.*nowhere\.invalid"):
        fetch("https://nowhere.invalid/net.npz")


@pytest.mark.parametrize("suffix", ["npz", "pth", "safetensors", "caffemodel"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>Not here any more.</html>", "it looks like a web page"),
        (CONTENT[:1_000_000], ""),
    ],
)
def test_what_is_no_whole_file_of_weights_is_not_kept(server, suffix, body, message):
    server.files, server.tells_length = {f"/net.{suffix}": body}, False
    address = f"{server.url}/net.{suffix}"
    with pytest.raises(WeightsError, match=r"what came is no whole file of weights, and was not kept") as caught:
        fetch(address)
    assert str(caught.value).startswith(f"{address}: ") and message in str(caught.value).replace("It looks", "it looks")
    assert cached() == [f"net.{suffix}.lock"]
    server.files = {"/net.npz": CONTENT}
    assert fetch(f"{server.url}/net.npz").read_bytes() == CONTENT


def test_a_body_without_a_length_that_reads_is_kept(server):
    server.files, server.tells_length, server.etag = {"/net.npz": CONTENT}, False, False
    assert fetch(f"{server.url}/net.npz").read_bytes() == CONTENT


def test_a_known_digest_is_enough(server):
    page = b"<!DOCTYPE html>"
    server.files = {"/net.npz": page}
    assert fetch(f"{server.url}/net.npz#sha256={digest(page)}").read_bytes() == page


def test_an_error_of_loading_says_where_the_file_lies(server):
    server.files = {"/net.npz": CONTENT}
    address = f"{server.url}/net.npz"
    with pytest.raises(WeightsError) as caught:
        camjax.load_model("resnet18", weights=address)
    assert str(caught.value).startswith(f"{address} (kept as {fetch(address)}) does not fit the model")


def test_what_a_server_says_reaches_the_terminal_without_control_codes(server):
    server.status, server.reason = 418, "tea\x1b]0;owned\x07\x1b[2J pot"
    with pytest.raises(FetchError) as caught:
        fetch(f"{server.url}/net.npz")
    assert "answers 418 tea ]0;owned" in str(caught.value) and str(caught.value).isprintable()


def test_the_digits_in_a_name_are_checked(server):
    name = f"/resnet50-{digest(CONTENT)[:8]}.npz"
    server.files = {name: OTHER}
    with pytest.raises(WeightsError) as caught:
        fetch(f"{server.url}{name}")
    assert f"has SHA-256 {digest(OTHER)}, expected {digest(CONTENT)[:8]}..." in str(caught.value)
    assert cached() == [f"{name[1:]}.lock"]
    server.files = {name: CONTENT}
    path = fetch(f"{server.url}{name}")
    assert path.read_bytes() == CONTENT
    # Damaged in the cache, it is fetched again.
    path.write_bytes(OTHER)
    assert fetch(f"{server.url}{name}").read_bytes() == CONTENT


def test_the_digits_behind_an_address_are_checked(server):
    server.files = {"/net-20240101.npz": CONTENT}
    address = f"{server.url}/net-20240101.npz"
    with pytest.raises(WeightsError, match=f"expected {digest(OTHER)}"):
        fetch(f"{address}#sha256={digest(OTHER)}")
    # They count, and not those in the name, which are none.
    with pytest.raises(WeightsError, match=rf"expected 20240101\.\.\..*put #sha256={digest(CONTENT)} after it"):
        fetch(address)
    path = fetch(f"{address}#sha256={digest(CONTENT).upper()}")
    assert path.read_bytes() == CONTENT


def test_a_resumed_download_is_checked_as_a_whole(server):
    broken_off(server)
    (part,) = cache_directory().rglob("*.part")
    part.write_bytes(OTHER[:1_048_576])
    with pytest.raises(WeightsError, match="has SHA-256"):
        fetch(f"{server.url}/net.npz#sha256={digest(CONTENT)}")
    assert fetch(f"{server.url}/net.npz#sha256={digest(CONTENT)}").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://bucket/net.npz", "expected an address that begins with hf:// or https://"),
        ("https://host/", r"expected the address of a file, https://HOST/\.\.\./FILE"),
        ("https://host/a/..", "expected the address of a file"),
        ("https:///net.npz", "expected the address of a file"),
        ("https://host/net.npz#md5=00", "#sha256= and 64 hexadecimal digits"),
        ("https://host/net.npz#sha256=00", "#sha256= and 64 hexadecimal digits"),
        ("hf://timm", r"expected hf://OWNER/NAME\[@REVISION\]\[/FILE\]"),
        ("hf://datasets/a/b/net.npz", "expected a model, .* this is a dataset"),
    ],
)
def test_addresses_that_are_none(address, message):
    with pytest.raises(ValueError, match=message):
        fetch(address)


def test_two_processes_fetch_a_file_once(server):
    server.files = {"/net.npz": CONTENT}
    code = f"{LIGHT}; from camjax.weights.fetch import fetch; print(fetch(sys.argv[1]))"

    def run(_):
        command = [sys.executable, "-c", code, f"{server.url}/net.npz"]
        return subprocess.run(command, check=True, capture_output=True, text=True)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    assert first.stdout == second.stdout and first.stderr == second.stderr == ""
    assert server.ranges_asked == [None]


# huggingface_hub reads its environment when it is imported: hence a process for each case.
HUB = f"""
{LIGHT}; import json
from camjax.weights.fetch import fetch
answers = []
for address in sys.argv[1:]:
    try:
        path = fetch(address)
        answers.append(path.read_bytes().hex()[:16] + "+config" * path.with_name("config.json").is_file())
    except Exception as error:
        answers.append(f"{{type(error).__name__}}: {{error}}")
print(json.dumps(answers))
"""


def from_hub(server, cache, *addresses, **environment) -> list[str]:
    """The first bytes in hexadecimal of what a fresh process gets from each address, or the error."""
    settings = {"HF_ENDPOINT": server.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": ""}
    result = subprocess.run(
        [sys.executable, "-c", HUB, *addresses],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def start(content: bytes) -> str:
    return content[:8].hex()


@pytest.fixture
def hub(server):
    """A server with two repositories as the Hub has them."""
    server.files = {
        "/timm/new": b"",
        "/timm/new/resolve/main/model.safetensors": CONTENT,
        "/timm/new/resolve/main/pytorch_model.bin": OTHER,
        "/timm/new/resolve/v2/sub/net.npz": OTHER,
        f"/timm/new/resolve/{COMMIT}/config.json": b"{}",
        "/timm/old": b"",
        "/timm/old/resolve/main/pytorch_model.bin": OTHER,
    }
    return server


def test_the_hub(hub, tmp_path):
    files = ["hf://timm/new", "hf://timm/old", "hf://timm/new@v2/sub/net.npz", "hf://timm/new/pytorch_model.bin"]
    expected = [f"{start(CONTENT)}+config", start(OTHER), start(OTHER), f"{start(OTHER)}+config"]
    missing = ["hf://timm/new/gone.npz", "hf://timm/gone", "hf://timm/new/model.safetensors@v2"]
    found = from_hub(hub, tmp_path / "hub", *files, *missing)
    assert found[:4] == expected
    assert found[4] == "FetchError: hf://timm/new/gone.npz: the repository has no file gone.npz."
    assert found[5].startswith("FetchError: hf://timm/gone: the repository does not exist or is private")
    assert found[6].endswith("A revision comes after the repository: hf://timm/new@REVISION/FILE.")

    # What is in the cache asks nobody.
    hub.requests.clear()
    hub.heads = 0
    assert from_hub(hub, tmp_path / "hub", *files) == expected
    assert from_hub(hub, tmp_path / "hub", *files, HF_HUB_OFFLINE="1") == expected
    assert (hub.requests, hub.heads) == ([], 0)


def test_the_hub_out_of_reach(hub, tmp_path):
    (offline,) = from_hub(hub, tmp_path / "hub", "hf://timm/new", HF_HUB_OFFLINE="1")
    assert offline == (
        "FetchError: hf://timm/new: it is not in the cache, and HF_HUB_OFFLINE keeps huggingface_hub from the network."
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
        (unreachable,) = from_hub(hub, tmp_path / "hub", "hf://timm/new", HF_ENDPOINT=nobody)
    assert unreachable.startswith("FetchError: hf://timm/new: the Hugging Face Hub cannot be reached, and the file is")
    assert "\n" not in unreachable


def test_a_file_of_the_hub_is_checked(hub, tmp_path, monkeypatch):
    real = Handler.send_header
    page = "/timm/old/resolve/main/page.safetensors"
    hub.files[page] = b"<!DOCTYPE html>"

    def another_etag(handler, name, value):
        tag = "1" if handler.path == page else digest(OTHER)
        real(handler, name, f'"{tag}"' if name == "ETag" else value)

    with monkeypatch.context() as patch:
        patch.setattr(Handler, "send_header", another_etag)
        wrong, no_weights = from_hub(hub, tmp_path / "hub", "hf://timm/new", "hf://timm/old/page.safetensors")
    # Without a SHA-256 from the Hub.
    assert no_weights.startswith("WeightsError: hf://timm/old/page.safetensors: what came is no whole file of weights")
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file() and b"<!DOC" in path.read_bytes()]
    assert wrong.startswith(f"WeightsError: hf://timm/new: the downloaded file has SHA-256 {digest(CONTENT)}, expected")
    assert from_hub(hub, tmp_path / "hub", "hf://timm/new") == [f"{start(CONTENT)}+config"]
