"""A service that answers pictures with boxes: POST a JPEG, PNG, ... and get JSON.

    python examples/serve_boxes.py --network birds.camjax
    curl --data-binary @cat.jpg http://127.0.0.1:8000/boxes

Needs "camjax[app]". A box is [ymin, xmin, ymax, xmax] in 0..1. There is no password and no encryption: put what has
them in front of it before others can reach it.
"""

import argparse
import asyncio

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import camjax
from camjax.cam import class_probabilities
from camjax.data.decoding import ImageError, decode_image, open_image
from camjax.data.images import resize_image

MAX_BYTES, MAX_PIXELS, MAX_WAITING, MAX_SECONDS = 16 << 20, 40_000_000, 8, 30


def service(name: str) -> Starlette:
    """The application, for a file of `camjax export`, a run, or a network of `camjax models`."""
    if name.endswith(".camjax"):
        localize = network = camjax.load_exported(name)
    else:
        network = camjax.load_model(name)
        localize = camjax.make_localize_fn(network, top_k=3)
    localize(np.zeros((1, *network.input_size, 3), np.uint8))  # so that no request waits for a compilation
    one_at_a_time, waiting = asyncio.Lock(), asyncio.Semaphore(MAX_WAITING)

    def found_in(data: bytes) -> list[dict]:
        width, height = open_image(data).size  # from the header, before anything is decoded
        if width * height > MAX_PIXELS:
            raise ImageError(f"{width} x {height} pixels; expected at most {MAX_PIXELS:,}.")
        found = localize(resize_image(decode_image(data, apply_exif=True), network.input_size)[None])
        shares = class_probabilities(np.asarray(found.logits), network.multi_label)[0]
        names = network.class_names or range(len(shares))
        rows = zip(found.class_ids[0].tolist(), found.boxes[0].tolist(), found.valid[0].tolist(), strict=True)
        return [{"class": names[i], "probability": float(shares[i]), "box": box if ok else None} for i, box, ok in rows]

    async def answer(request: Request) -> JSONResponse:
        if waiting.locked():
            return JSONResponse({"error": "too many requests wait: try again in a minute"}, 503)
        data = bytearray()
        async with waiting:
            try:
                async with asyncio.timeout(MAX_SECONDS):
                    async for part in request.stream():  # counted here: the header may be missing, or wrong
                        data += part
                        if len(data) > MAX_BYTES:
                            return JSONResponse({"error": f"expected at most {MAX_BYTES:,} bytes"}, 413)
                async with one_at_a_time:
                    return JSONResponse(await run_in_threadpool(found_in, bytes(data)))
            except TimeoutError:
                return JSONResponse({"error": f"the picture did not arrive within {MAX_SECONDS} seconds"}, 408)
            except ClientDisconnect:
                return JSONResponse({"error": "the picture did not arrive: the connection was closed"}, 400)
            except ImageError as error:
                return JSONResponse({"error": str(error)}, 400)

    return Starlette(routes=[Route("/boxes", answer, methods=["POST"])])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    uvicorn.run(service(options.network), host="127.0.0.1", port=options.port)
