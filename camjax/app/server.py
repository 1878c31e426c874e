"""The server of the page: what it answers, to whom, and the addresses of its parts."""

import asyncio
import base64
import contextlib
import csv
import io
import json
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from types import FrameType
from typing import Any

import matplotlib
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from camjax.app.guard import Guard
from camjax.app.networks import LEFT, Busy, Networks
from camjax.app.pictures import MAX_BYTES, MAX_PIXELS, Gone, Picture, Pictures, check_bytes
from camjax.app.result_pages import Results
from camjax.data.pixel_boxes import turn_boxes_back, whole_pixels
from camjax.errors import InputError
from camjax.models import CamModel

COLORMAPS = ("jet", "turbo", "viridis", "magma", "inferno", "cividis", "coolwarm", "gray")
LISTED = 5
"""Classes that the table has at least."""
MAX_TOP_K = 10

_PAGES = {"/": "picture.html", "/results": "results.html"}
_FILES = {"app.css": "text/css", "common.js": "text/javascript", "picture.js": "text/javascript"}
_FILES |= {"results.js": "text/javascript", "icon.svg": "image/svg+xml"}

_KEPT = {"cache-control": "private, max-age=3600"}


@dataclass(frozen=True)
class Content:
    """What the page offers.

    Attributes:
      networks: title -> what loads the network.
      examples: name -> what reads the file of an example picture.
      results: evaluations and annotations.
    """

    networks: Mapping[str, Callable[[], CamModel]]
    examples: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)
    results: Sequence[Results] = ()


class Server(uvicorn.Server):
    """Serves the page, until Ctrl-C.

    Args:
      content: what the page offers.
      host: as the user gave it, a name of the machine.
    """

    def __init__(self, content: Content, host: str):
        self._networks = Networks(content.networks, Pictures())
        app = _application(_Page(content, self._networks), host)
        # Without a configuration, only warnings and errors are logged, to stderr.
        super().__init__(uvicorn.Config(app, log_config=None, server_header=False, proxy_headers=False))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends, and also the computation that runs."""
        self._networks.stop()
        super().handle_exit(sig, frame)


def _application(page: "_Page", host: str) -> Starlette:
    routes = [
        *(Route(path, _static(name, "text/html; charset=utf-8")) for path, name in _PAGES.items()),
        *(Route(f"/static/{name}", _static(name, media_type)) for name, media_type in _FILES.items()),
        Route("/api/start", page.start),
        Route("/api/status", page.status),
        Route("/api/network", _while_asked(page.network)),
        Route("/api/pictures", page.upload, methods=["POST"]),
        Route("/api/examples", page.example, methods=["POST"]),
        Route("/api/picture", page.picture),
        Route("/api/explain", _while_asked(page.explain)),
        Route("/api/boxes", _while_asked(page.boxes)),
        Route("/api/figure.png", _while_asked(page.figure)),
        Route("/api/boxes.csv", _while_asked(page.boxes_csv)),
        Route("/api/boxes.json", _while_asked(page.boxes_json)),
        Route("/api/map.npy", _while_asked(page.map_file)),
        Route("/api/results", page.results),
        Route("/api/results/picture", page.results_picture),
        Route("/api/results/open", page.results_open, methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, host=host, pages=tuple(_PAGES))],
        exception_handlers={InputError: _explained, OSError: _explained, ClientDisconnect: _explained, Exception: _bug},
    )


class _Page:
    """The answers. Methods that are not `async` run in threads."""

    def __init__(self, content: Content, networks: Networks):
        self._networks, self._pictures = networks, networks.pictures
        self._examples = tuple(content.examples.items())
        self._results = content.results

    def start(self, request: Request) -> Response:
        """What the page offers before a network is loaded."""
        return JSONResponse(
            {
                "networks": self._networks.titles,
                "examples": [name for name, _ in self._examples],
                "results": [{"title": of.title, "kind": of.kind} for of in self._results],
                "colormaps": {name: _encoded(_colors(name)) for name in COLORMAPS},
                "max_bytes": MAX_BYTES,
                "max_pixels": MAX_PIXELS,
                "max_top_k": MAX_TOP_K,
            }
        )

    def status(self, request: Request) -> Response:
        """How often a network ran, and how far the one is that runs now."""
        return JSONResponse({"runs": self._networks.runs, "working": self._networks.working})

    def network(self, request: Request) -> Response:
        """The classes and methods of a network."""
        network = self._networks[_number(request, "network")]
        methods = [
            {"name": row.name, "slow": row.is_loop, "own_box": row.host_boxes is not None} for row in network.methods
        ]
        return JSONResponse(
            {"class_names": network.class_names, "num_classes": network.num_classes, "methods": methods}
        )

    async def upload(self, request: Request) -> Response:
        """Takes the file of a picture."""
        name = request.query_params.get("name", "picture")
        check_bytes(name, int(request.headers.get("content-length", 0)))
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            check_bytes(name, len(data))
        return await run_in_threadpool(self._added, name, bytes(data))

    def example(self, request: Request) -> Response:
        """Takes an example picture."""
        number = _number(request, "example")
        if not 0 <= number < len(self._examples):
            raise InputError(f"example {number}: expected one of 0..{len(self._examples) - 1}.")
        name, read = self._examples[number]
        return self._added(name, read())

    def _added(self, name: str, data: bytes) -> Response:
        key = self._pictures.add(name, data)
        picture = self._pictures[key]
        height, width = picture.size
        return JSONResponse({"picture": key, "name": picture.name, "height": height, "width": width})

    def picture(self, request: Request) -> Response:
        """A picture as the page shows it."""
        shown = self._pictures[request.query_params.get("picture", "")].shown
        return Response(shown, media_type="image/jpeg", headers=_KEPT)

    def explain(self, request: Request) -> Response:
        """The most probable classes and those asked for, with their maps by one method."""
        picture, network, methods, asked = self._question(request)
        method = methods[0]
        top_k = _number(request, "top_k", 0)
        if not 0 <= top_k <= MAX_TOP_K:
            raise InputError(f"top_k={top_k}: expected 0..{MAX_TOP_K}.")
        offered, size = self._networks[network], self._pictures[picture].size
        logits = self._networks.logits(picture, network)
        order = np.argsort(-logits, kind="stable").tolist()
        shown = list(dict.fromkeys([*order[:top_k], *asked])) or order[:1]
        maps = self._networks.maps(picture, network, method, shown)
        boxes = self._networks.boxes(picture, network, method, shown, _threshold(request))
        probabilities = offered.probabilities(logits)
        ranks = {class_id: rank for rank, class_id in enumerate(order, 1)}
        return JSONResponse(
            {
                "classes": [
                    {"id": i, "name": offered.name_of(i), "rank": ranks[i], "probability": float(probabilities[i])}
                    for i in dict.fromkeys([*order[: max(top_k, LISTED)], *shown])
                ],
                "maps": [
                    {"id": i, "shape": map.values.shape, "values": _encoded(map.values), "box": _edges(box, size)}
                    for i, map, box in zip(shown, maps, boxes, strict=True)
                ],
            }
        )

    def boxes(self, request: Request) -> Response:
        """The boxes of classes by methods: method -> a box for each class, see `_edges`."""
        picture, network, methods, ids = self._question(request)
        threshold, size = _threshold(request), self._pictures[picture].size
        return JSONResponse(
            {
                method: [_edges(box, size) for box in self._networks.boxes(picture, network, method, ids, threshold)]
                for method in methods
            }
        )

    def figure(self, request: Request) -> Response:
        """The figure, as PNG."""
        picture, network, methods, ids = self._question(request)
        query = request.query_params
        scale = query.get("scale", "picture")
        if scale not in ("picture", "each"):
            raise InputError(f"scale {scale[:40]!r}: expected picture or each.")
        figure = self._networks.figure(
            picture,
            network,
            methods,
            ids,
            _threshold(request),
            alpha=_fraction(request, "opacity", 0.5),
            colormap=query.get("colormap", "jet"),
            scale=scale,
            draw_boxes=query.get("box", "1") == "1",
        )
        file = io.BytesIO()
        figure.savefig(file, format="png", pil_kwargs={"compress_level": 1})
        return Response(file.getvalue(), media_type="image/png")

    def boxes_csv(self, request: Request) -> Response:
        """The boxes as CSV, in stored pixels, with the columns that `camjax evaluate --boxes` reads."""
        rows = self._rows(request)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)
        return Response(text.getvalue(), media_type="text/csv")

    def boxes_json(self, request: Request) -> Response:
        """The boxes as JSON, in stored pixels."""
        return Response(json.dumps(self._rows(request), indent=2) + "\n", media_type="application/json")

    def _rows(self, request: Request) -> list[dict[str, Any]]:
        picture, network, methods, ids = self._question(request)
        threshold = _threshold(request)
        found, offered = self._pictures[picture], self._networks[network]
        probabilities = offered.probabilities(self._networks.logits(picture, network))
        height, width = found.size[::-1] if found.orientation >= 5 else found.size
        return [
            {
                "filename": found.name,
                **dict(zip(("xmin", "ymin", "xmax", "ymax"), _last_pixels(box, found), strict=True)),
                "label": offered.name_of(i),
                "class_id": i,
                "probability": round(float(probabilities[i]), 6),
                "method": method,
                "threshold": threshold,
                "width": width,
                "height": height,
                "network": self._networks.titles[network],
            }
            for method in methods
            for i, box in zip(ids, self._networks.boxes(picture, network, method, ids, threshold), strict=True)
        ]

    def map_file(self, request: Request) -> Response:
        """The raw map of a class, (h, w) float32, as `numpy.load` reads it."""
        picture, network, methods, ids = self._question(request)
        file = io.BytesIO()
        np.save(file, self._networks.maps(picture, network, methods[0], ids[:1])[0].values)
        return Response(file.getvalue(), media_type="application/octet-stream")

    def results(self, request: Request) -> Response:
        """A page of an evaluation or an annotation."""
        query = request.query_params
        found = self._chosen(request).page(
            measure=query.get("measure", ""),
            order=query.get("order", "worst"),
            class_id=_number(request, "class") if query.get("class") else None,
            only=query.get("only", ""),
            page=_number(request, "page", 0),
        )
        return JSONResponse(found)

    def results_picture(self, request: Request) -> Response:
        """A picture of an evaluation or an annotation."""
        return Response(self._chosen(request).thumbnail(_number(request, "row")), media_type="image/jpeg")

    def results_open(self, request: Request) -> Response:
        """Takes a picture of an evaluation or an annotation, to look at its maps."""
        return self._added(*self._chosen(request).file(_number(request, "row")))

    def _chosen(self, request: Request) -> Results:
        number = _number(request, "results")
        if not 0 <= number < len(self._results):
            raise InputError(f"results {number}: the page was started with {len(self._results)} of them.")
        return self._results[number]

    def _question(self, request: Request) -> tuple[str, int, list[str], list[int]]:
        """Picture, network, methods and class ids of a request."""
        query = request.query_params
        ids = [_whole(text, "class") for text in query.getlist("class")]
        methods = list(dict.fromkeys(query.getlist("method")))
        if not methods:
            raise InputError("no method: choose at least one.")
        return query.get("picture", ""), _number(request, "network"), methods, list(dict.fromkeys(ids))


def _while_asked(answer: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Answers in a thread, which learns by `LEFT` that the browser has closed the connection."""

    async def endpoint(request: Request) -> Response:
        left = threading.Event()

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            left.set()

        LEFT.set(left.is_set)
        watching = asyncio.create_task(watch())
        try:
            return await run_in_threadpool(answer, request)
        finally:
            watching.cancel()

    return endpoint


def _static(name: str, media_type: str) -> Callable[[Request], Response]:
    content = files("camjax.app").joinpath("page", name).read_bytes()
    return lambda request: Response(content, media_type=media_type)


def _explained(request: Request, error: Exception) -> Response:
    status = 410 if isinstance(error, Gone) else 503 if isinstance(error, Busy) else 400
    return JSONResponse({"error": str(error)}, status_code=status)


def _bug(request: Request, error: Exception) -> Response:
    sentence = f"{type(error).__name__}: this is a bug. The terminal of camjax app shows where; please report it."
    return JSONResponse({"error": sentence}, status_code=500)


def _number(request: Request, name: str, default: int | None = None) -> int:
    text = request.query_params.get(name)
    return default if text is None and default is not None else _whole(text or "", name)


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InputError(f"{name} is {text[:40]!r}: expected a whole number.")
    return int(text)


def _fraction(request: Request, name: str, default: float) -> float:
    text = request.query_params.get(name, str(default))
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise InputError(f"{name} is {text[:40]!r}: expected a number in 0..1.")


def _threshold(request: Request) -> float:
    return _fraction(request, "threshold", 0.2)


def _encoded(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _colors(name: str) -> np.ndarray:
    """(256, 3) uint8."""
    return np.rint(matplotlib.colormaps[name](np.arange(256))[:, :3] * 255).astype(np.uint8)


def _edges(box: np.ndarray | None, size: tuple[int, int]) -> dict[str, list] | None:
    """Top, left, bottom and right of a box, as shares of the picture and in its pixels, half-open; None for none."""
    return None if box is None else {"shares": box.tolist(), "pixels": whole_pixels(box, size).tolist()}


def _last_pixels(box: np.ndarray | None, picture: Picture) -> tuple[int | str, ...]:
    """xmin, ymin, xmax, ymax: the first and last stored pixels, not turned by an EXIF tag; empty for no box."""
    if box is None:
        return ("",) * 4
    edges = turn_boxes_back(whole_pixels(box, picture.size), picture.orientation, picture.size)
    ymin, xmin, ymax, xmax = edges.tolist()
    return xmin, ymin, xmax - 1, ymax - 1
