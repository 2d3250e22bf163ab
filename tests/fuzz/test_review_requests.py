"""Requests to the review page as no browser would send them, handed to the application as a server does.

Whatever the application does not answer itself is raised here, so a request that is answered at all shows no traceback.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import anyio
import pytest
from damage import damaged, inputs
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from starlette.applications import Starlette
from starlette.types import Message

from contextseg.classes import Classes
from contextseg.review.app import create_app
from contextseg.review.jobs import ExportJob, SplitJob
from contextseg.review.serve import open_review
from contextseg.settings import make_settings
from contextseg.training.fit import fit

LAB = make_settings({"n_classes": 4, "method": "lab", "data": {"image_px": 32}, "views": {"frame_px": 32}})
TOKEN, COOKIE = "a-token", "contextseg_8765"
HOST = b"127.0.0.1:8765"
TRUSTED = {b"host": HOST, b"origin": b"http://" + HOST, b"cookie": f"{COOKIE}={TOKEN}".encode()}
CANARY = "not for the page"

NUMBERS = st.one_of(
    st.integers().map(str), st.sampled_from(["9" * 30, "9" * 5000, "-0", "1e5", "0x1", "1_0", "", "%D9%A3", "0"])
)
PARTS = st.sampled_from(
    [
        "..", ".", "", "%2e%2e", "..%2f..", "%5c", "%00", "etc", "passwd", "static", "app.py", "images", "0",
        "view.jpg", "settings.yaml", "run", "review", "log.jsonl", "secret.txt", "a" * 300,
    ]
) | st.text(max_size=5).map(lambda text: quote(text.encode("utf-8", "surrogatepass"), safe=""))  # fmt: skip
ROUTES = st.sampled_from(
    [
        "/", "/state", "/export", "/images?start={}", "/images?search={}&order={}", "/?token={}", "/images/{}/view.jpg",
        "/images/{}/view.planes", "/images/{}/thumbnail.jpg", "/images/{}/thumbnail.planes", "/clusters/{}/{}.jpg",
        "/clusters/0/{}.jpg", "/clusters/{}/0.jpg",
    ]
)  # fmt: skip
TARGETS = st.builds(lambda route, a, b: route.format(a, b), ROUTES, NUMBERS, NUMBERS) | st.builds(
    lambda start, parts: start + "/".join(parts),
    st.sampled_from(["/", "/static/", "/images/0/", "/images/", "/images?search=", "//"]),
    st.lists(PARTS, max_size=6),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
KEYS = ("id", "name", "colour", "into", "others", "undo", "ids", "x", "y", "to", "image", "point", "from", "classes")
VALUES = JSON | st.integers(-1, 5) | st.lists(st.integers(-1, 5), max_size=3)
ACTIONS = ("name", "colour", "merge", "hide", "undo", "redo", "take", "correct")
REAL = [
    {"action": "name", "id": 3, "name": "sky"},
    {"action": "colour", "id": 0, "colour": [1, 2, 3]},
    {"action": "merge", "into": 1, "others": [2], "undo": False},
    {"action": "hide", "ids": [0]},
    {"x": 7, "y": 0, "to": 3},
]
BODIES = st.one_of(
    st.sampled_from(REAL).flatmap(lambda action: damaged(json.dumps(action).encode())),
    st.builds(
        lambda action, rest: json.dumps({"action": action} | rest).encode(),
        st.sampled_from(ACTIONS) | JSON,
        st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4),
    ),
    st.dictionaries(st.sampled_from(KEYS[7:10]), st.integers(-1, 40) | VALUES, max_size=3)
    .map(json.dumps)
    .map(str.encode),
    st.sampled_from(
        [b"[" * 9000, b'{"action":"hide","ids":[' + b"9" * 9000 + b"]}", b'{"action":"name","name":"\\ud800"}']
    ),
    st.binary(max_size=50),
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
LATIN = st.text(st.characters(max_codepoint=255), max_size=20).map(lambda text: text.encode("latin-1"))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[bytes, bytes]
    content: bytes


@dataclass(frozen=True)
class Served:
    """A page, and the folder that holds its run and its images, and a file that is not for it."""

    app: Starlette
    root: Path

    def ask(self, method: str, target: str, headers: dict[bytes, bytes], body: bytes = b"") -> Answer:
        """Hand a request over as uvicorn does; its length is told unless the headers tell another."""
        path, _, query = target.partition("?")
        if method not in {"GET", "HEAD"}:
            headers = {b"content-length": str(len(body)).encode()} | headers
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": list(headers.items()),
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8765),
        }
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        anyio.run(self.app, scope, receive, send)
        return Answer(sent[0]["status"], dict(sent[0]["headers"]), b"".join(part.get("body", b"") for part in sent[1:]))

    def foreign(self) -> dict[Path, bytes]:
        """Return all files that no request may change, with what is in them."""
        own = (self.root / "run" / "review", self.root / "run" / "classes.json", self.root / "export")
        paths = (path for path in self.root.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in paths if not any(path.is_relative_to(place) for place in own)}


@pytest.fixture(scope="module")
def served(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    root = tmp_path_factory.mktemp("served")
    run = fit(scenes, root / "run", LAB).path
    (root / "secret.txt").write_text(CANARY)
    with (run / "settings.yaml").open("a") as file:
        file.write(f"# {CANARY}\n")
    review = open_review(run, scenes, console=Console(quiet=True))
    return Served(
        create_app(
            review,
            ExportJob(review, root / "export"),
            SplitJob(root / "none", root),
            title="run",
            token=TOKEN,
            cookie=COOKIE,
        ),
        root,
    )


@pytest.fixture(scope="module")
def unchanged(served: Served) -> Callable[[], bool]:
    before = served.foreign()
    return lambda: served.foreign() == before


@inputs
@given(method=METHODS, target=TARGETS, body=BODIES)
def test_any_path(served: Served, unchanged: Callable[[], bool], method: str, target: str, body: bytes) -> None:
    answer = served.ask(method, target, TRUSTED, body)
    assert answer.status in {200, 303, 307, 404, 405, 414, 422}
    for text in (CANARY.encode(), b"root:", b"create_app"):
        assert text not in answer.content
    assert b"content-security-policy" in answer.headers
    assert unchanged()


@inputs
@given(body=BODIES, index=st.none() | st.integers(-1, 13))
def test_any_body(served: Served, unchanged: Callable[[], bool], body: bytes, index: int | None) -> None:
    target = "/actions" if index is None else f"/images/{index}/corrections"
    before = served.ask("GET", "/state", TRUSTED).content
    answer = served.ask("POST", target, TRUSTED, body)
    assert answer.status in ({200, 422} if index in {None, *range(12)} else {404, 422})
    if answer.status == 200:
        assert json.loads(answer.content) == json.loads(served.ask("GET", "/state", TRUSTED).content)
        Classes.read(served.root / "run" / "classes.json", 4)
        served.ask("POST", "/actions", TRUSTED, b'{"action":"undo"}')  # so that the run stays small
    else:
        assert answer.status == 404 or list(json.loads(answer.content)) == ["error"]
        assert served.ask("GET", "/state", TRUSTED).content == before
    assert unchanged()


@inputs
@given(method=METHODS, length=LATIN | NUMBERS.map(str.encode), body=BODIES)
def test_any_length(served: Served, method: str, length: bytes, body: bytes) -> None:
    answer = served.ask(method, "/nothing", TRUSTED | {b"content-length": length}, body)
    assert answer.status in ({404} if method in {"GET", "HEAD"} else {404, 411, 413})


@inputs
@given(
    method=METHODS,
    target=TARGETS.filter(lambda target: TOKEN not in target),
    body=BODIES,
    wrong=st.sampled_from(sorted(TRUSTED)),
    value=LATIN
    | st.sampled_from([b"localhost.evil.example", b"127.0.0.1@evil", b"null", b"https://" + HOST, b"[::1]"]),
)
def test_strangers(served: Served, method: str, target: str, body: bytes, wrong: bytes, value: bytes) -> None:
    """One of host, origin and cookie is not the page's."""
    if wrong == b"host" and value.partition(b":")[0] in {b"127.0.0.1", b"localhost"}:
        value = b"evil.example"
    log = served.root / "run" / "review" / "log.jsonl"
    before = log.read_bytes()
    answer = served.ask(method, target, TRUSTED | {wrong: value}, body)
    assert answer.status == (421 if wrong == b"host" else 403)
    assert log.read_bytes() == before
