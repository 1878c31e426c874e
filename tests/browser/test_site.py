"""The site that `make docs` builds, in a real browser, as wide as a phone and as a screen: `make docs-check`.

Pictures of all pages are written to build/site-pictures, to be looked at.
"""

import functools
import html
import http.server
import re
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import requests

pytestmark = pytest.mark.browser

SITE = Path(__file__).parents[2] / "build" / "site"
PICTURES = SITE.with_name("site-pictures")
HIDDEN = {"_static", "_modules"}  # the latter are the sources of the code
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if not HIDDEN & {*path.parts})
WIDTHS = {"phone": 400, "screen": 1400}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def address():
    """Of a server of the site."""
    handler = functools.partial(_Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_site_is_there():
    assert len(PAGES) > 30, "make docs builds the site"
    assert (SITE / "llms.txt").read_text().startswith("# camjax\n")


@pytest.mark.parametrize("kind", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_page(browser, address, name, kind):
    """It has no error, asks nobody else for anything, and does not scroll sideways; its links lead somewhere."""
    errors, requested = [], []
    page = browser.new_page(viewport={"width": WIDTHS[kind], "height": 900})
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("requestfailed", lambda request: errors.append(request.url))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{address}/{name}")
    wide = page.evaluate("document.documentElement.scrollWidth")
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(
        path=PICTURES / f"{name.replace('/', '-').removesuffix('.html')}-{kind}.jpg", type="jpeg", quality=60
    )
    links = set(page.eval_on_selector_all("a[href]", "all => all.map(one => one.href)"))
    page.close()
    assert not errors
    assert not [url for url in requested if not url.startswith((address, "data:"))]
    assert wide <= WIDTHS[kind]
    for url in {urldefrag(link).url for link in links if link.startswith(address)}:
        assert requests.head(url).status_code == 200, url


@pytest.mark.parametrize("name", PAGES)
def test_links_to_parts_of_pages(name):
    for link in re.findall(r'<a [^>]*href="([^":]*#[^"]+)"', (SITE / name).read_text()):
        page, part = urldefrag(html.unescape(link))
        target = (SITE / name).parent / page if page else SITE / name
        assert f'id="{unquote(part)}"' in target.read_text(), link


def test_search_finds_a_page(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/search.html?q=threshold")
    page.locator("#search-results ul.search li").first.wait_for()
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(browser, address, scheme):
    page = browser.new_page(color_scheme=scheme)
    page.goto(address)
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"index-{scheme}.jpg", type="jpeg", quality=60)
    page.close()
    shades = [int(part) for part in color[4:-1].split(",")]
    assert (max(shades) < 60) if scheme == "dark" else (min(shades) > 230)
