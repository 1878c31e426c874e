"""Who is answered: this page and the person who opened it, and no other page in the same browser."""

import contextlib
import ipaddress
import socket
from collections.abc import Collection, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    # Nothing comes from elsewhere, nothing goes elsewhere, and no other page shows this one in a frame.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Guard:
    """Answers only requests that this page makes, or a person who typed its address.

    Another page in the same browser could otherwise send requests here: directly, or under a name of its own whose
    address it changes to this machine's (DNS rebinding). So the name in the address is one that no one else can give:
    a number, or this machine's.

    Args:
      app: what is guarded.
      host: as the user gave it, a name of the machine.
      pages: paths that a link on another page may open.
    """

    def __init__(self, app: ASGIApp, host: str, pages: Collection[str]):
        self._app, self._pages = app, pages
        self._names = {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Request(scope).headers
        host = headers.get("host", "")
        if not self._is_own(host):
            await _refusal(
                f"The address of this page has the name {host[:100]!r}: expected localhost, this machine's name or "
                "its number. Give --host NAME to camjax app to use another."
            )(scope, receive, send)
        elif self._is_foreign(headers, host, scope["path"]):
            await _refusal("Another page sent this request: it is not answered.")(scope, receive, send)
        else:

            async def send_with_headers(message: Message) -> None:
                if message["type"] == "http.response.start":
                    has = {name for name, _ in message["headers"]}
                    added = ((name.encode(), value.encode()) for name, value in _HEADERS.items())
                    message["headers"] = [*message["headers"], *(pair for pair in added if pair[0] not in has)]
                await send(message)

            await self._app(scope, receive, send_with_headers)

    def _is_own(self, host: str) -> bool:
        name = host.lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name in self._names

    def _is_foreign(self, headers: Mapping[str, str], host: str, path: str) -> bool:
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return True
        site = headers.get("sec-fetch-site", "none")
        opened = path in self._pages and headers.get("sec-fetch-mode") == "navigate"
        return site not in ("none", "same-origin") and not opened


def _refusal(sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status_code=403)
