"""Who may ask: a browser on this machine that was given the token, from this page, with a small request.

* The Host must be a loopback name: another site's name that was made to point here (DNS rebinding) is refused.
* A request that says where it comes from must come from this page; one that changes something must say so.
* The token comes once in the address, and is then a cookie that scripts cannot read.
* The address is short; a request's body says its length, and is small.
"""

import hmac
import re
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 16_384
MAX_ADDRESS_BYTES = 2_000
LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """ASGI middleware that answers for the app where a request may not reach it.

    Args:
        app: what is guarded.
        token: the secret of this server.
        cookie: name of the cookie that holds it.
    """

    def __init__(self, app: ASGIApp, token: str, cookie: str) -> None:
        self._app = app
        self._token = token
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._answer(Request(scope)) or self._app
        return await answer(scope, receive, send_with_headers)

    def _answer(self, request: Request) -> Response | None:
        """Return the answer to a request that goes no further."""
        headers, changes = request.headers, request.method not in {"GET", "HEAD"}
        host = headers.get("host", "")
        if not LOOPBACK.fullmatch(host):
            return _refusal(HTTPStatus.MISDIRECTED_REQUEST, "this page is for the machine that it runs on")
        if headers.get("origin", None if changes else f"http://{host}") != f"http://{host}":
            return _refusal(HTTPStatus.FORBIDDEN, "the request comes from another page")
        if (token := request.query_params.get("token")) is not None and request.url.path == "/" and self._fits(token):
            answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="lax")
            return answer
        if not self._fits(request.cookies.get(self._cookie, "")):
            return _refusal(HTTPStatus.FORBIDDEN, "open the address that `contextseg review` has printed")
        if len(request.scope["path"]) + len(request.scope["query_string"]) > MAX_ADDRESS_BYTES:
            return _refusal(HTTPStatus.REQUEST_URI_TOO_LONG, f"the address has more than {MAX_ADDRESS_BYTES} bytes")
        length = headers.get("content-length", "")
        if changes and not length.isdecimal():
            return _refusal(HTTPStatus.LENGTH_REQUIRED, "the request does not say how long it is")
        if changes and (len(length) > 9 or int(length) > MAX_BODY_BYTES):  # Python refuses to read thousands of digits
            return _refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request has more than {MAX_BODY_BYTES} bytes")
        return None

    def _fits(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._token.encode())


def _refusal(status: HTTPStatus, reason: str) -> Response:
    return PlainTextResponse(f"{reason}\n", status)
