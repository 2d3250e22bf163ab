"""The web application: what it answers, and what it refuses."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reviewed_run import HALVES, STRIPES
from starlette.testclient import TestClient

from contextseg.classes import Classes
from contextseg.review.app import create_app
from contextseg.review.guard import MAX_BODY_BYTES
from contextseg.review.jobs import ExportJob, SplitJob
from contextseg.review.session import Review

HOST = "http://127.0.0.1:8765"
TOKEN = "a-token"
COOKIE = {"cookie": f"contextseg_8765={TOKEN}"}
FROM_PAGE = COOKIE | {"origin": HOST}


def client_of(review: Review, out: Path) -> TestClient:
    split = SplitJob(out.parent / "run", out.parent / "photos")
    app = create_app(review, ExportJob(review, out), split, title="<b>run", token=TOKEN, cookie="contextseg_8765")
    return TestClient(app, base_url=HOST, follow_redirects=False)


@pytest.fixture
def bare(reopen: Callable[[], Review], tmp_path: Path) -> Iterator[TestClient]:
    """A browser that has not opened the printed address."""
    with client_of(reopen(), tmp_path / "out") as client:
        yield client


@pytest.fixture
def client(bare: TestClient) -> TestClient:
    """A browser that has."""
    bare.headers.update(FROM_PAGE)
    return bare


def state_after(client: TestClient, **action: Any) -> dict[str, Any]:
    response = client.post("/actions", json=action)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_token_becomes_a_cookie(bare: TestClient) -> None:
    assert bare.get("/").status_code == 403
    assert bare.get("/?token=wrong").status_code == 403
    first = bare.get(f"/?token={TOKEN}")
    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert first.headers["set-cookie"] == f"contextseg_8765={TOKEN}; HttpOnly; Path=/; SameSite=lax"
    page = bare.get("/")  # the client has kept the cookie
    assert page.status_code == 200
    assert "&lt;b&gt;run" in page.text
    assert "<b>run" not in page.text


@pytest.mark.parametrize("path", ["/", "/state", "/images", "/images/0/view.jpg", "/static/main.js", "/export"])
def test_nothing_is_shown_without_the_token(bare: TestClient, path: str) -> None:
    for cookie in ("", "contextseg_8765=", "contextseg_8765=wrong", f"other={TOKEN}"):
        assert bare.get(path, headers={"cookie": cookie}).status_code == 403
    assert bare.get(path, headers=COOKIE).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "10.0.0.1:8765",
        "",
        "localhost:[",
        "localhost:8765:1",
    ],
)
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    response = client.get("/state", headers={"host": host, "origin": f"http://{host}"})
    assert response.status_code == 421


def test_the_page_can_be_reached_through_a_forwarded_port(client: TestClient) -> None:
    there = {"host": "localhost:9000", "origin": "http://localhost:9000"}
    assert client.post("/actions", json={"action": "hide", "ids": [0]}, headers=there).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://127.0.0.1:8765", "http://127.0.0.1:9000", "null", None]
)
def test_another_origin_is_refused(bare: TestClient, origin: str | None) -> None:
    headers = COOKIE if origin is None else COOKIE | {"origin": origin}
    for path in ("/actions", "/images/0/corrections", "/export"):
        assert bare.post(path, json={"action": "hide", "ids": [0]}, headers=headers).status_code == 403
    if origin is not None:
        assert bare.get("/state", headers=headers).status_code == 403
    assert bare.get("/state", headers=FROM_PAGE).json()["undo"] is None


def test_a_request_that_is_too_large_or_of_unknown_length(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"action":"undo"}'

    named = lambda n: json.dumps({"action": "name", "id": 0, "name": n * "x"})  # noqa: E731
    rest = len(named(0))
    assert client.post("/actions", content=named(MAX_BODY_BYTES - rest)).status_code == 200
    assert client.post("/actions", content=named(MAX_BODY_BYTES - rest + 1)).status_code == 413
    assert client.post("/actions", content=pieces()).status_code == 411
    assert client.post("/actions", headers={"content-length": "9" * 5000}).status_code == 413
    assert client.get(f"/images/{'9' * 5000}/view.jpg").status_code == 414
    assert client.get(f"/images?search={'x' * 2000}").status_code == 414


@pytest.mark.parametrize(
    "path",
    [
        "/images/3/view.jpg", "/images/99999999999999999999/view.planes", "/images/-1/view.jpg",
        "/images/..%2f..%2frun%2fsettings.yaml/view.jpg", "/images/0/../../../run/settings.yaml",
        "/images/0/view.jpg/..%2f..%2f..%2fsettings.yaml", "/static/../app.py", "/static/..%2fapp.py",
        "/static/%2e%2e/app.py", "/static//etc/passwd", "/clusters/9/0.jpg", "/clusters/0/77.jpg", "/../etc/passwd",
    ],
)  # fmt: skip
def test_tricks_with_paths_lead_nowhere(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code in {404, 422}
    assert "root:" not in response.text
    assert "n_classes" not in response.text
    assert "import" not in response.text


def test_every_answer_has_the_headers(client: TestClient) -> None:
    for path in ("/", "/state", "/static/main.js", "/images/0/view.jpg", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "no-store" in headers["cache-control"] or path.endswith(".jpg")


def test_the_page_holds_neither_script_nor_style() -> None:
    folder = Path(create_app.__code__.co_filename).parent
    page = (folder / "templates/page.html").read_text()
    assert page.count("<script") == page.count('<script type="module" src="/static/') == 1
    assert "<style" not in page
    assert " style=" not in page
    assert " onclick" not in page
    for script in folder.glob("static/*.js"):
        assert not re.search(r"(inner|outer|Adjacent)HTML|document\.write|\beval\b|Function\(", script.read_text())


def test_each_action(client: TestClient, case: tuple[Path, Path]) -> None:
    state_after(client, action="name", id=3, name="<script>alert(1)</script>")
    state_after(client, action="colour", id=0, colour=[1, 2, 3])
    state_after(client, action="merge", into=1, others=[2])
    state = state_after(client, action="hide", ids=[0])
    shown = [(c["name"], c["merged_into"], c["survivor"], c["hidden"]) for c in state["classes"]]
    assert shown == [
        ("class 0", None, 0, True),
        ("class 1", None, 1, False),
        ("class 2", 1, 1, False),
        ("<script>alert(1)</script>", None, 3, False),
    ]
    assert (state["undo"], state["redo"], state["corrections"]) == ("hide", None, 0)
    assert state["classes"][0]["colour"] == [1, 2, 3]
    assert Classes.read(case[0] / "classes.json").entries[2].merged_into == 1
    state = state_after(client, action="undo")
    assert (state["undo"], state["redo"], state["classes"][0]["hidden"]) == ("merge", "hide", False)
    assert state_after(client, action="redo")["classes"][0]["hidden"]
    assert client.get("/state").json()["redo"] is None


def test_decisions_outlive_the_program(
    client: TestClient, reopen: Callable[[], Review], case: tuple[Path, Path], tmp_path: Path
) -> None:
    state_after(client, action="name", id=3, name="sky")
    state_after(client, action="merge", into=1, others=[2])
    client.post("/images/0/corrections", json={"x": 7, "y": 0, "to": 3})
    state_after(client, action="hide", ids=[0])
    state = state_after(client, action="undo")
    with (case[0] / "review/log.jsonl").open("a") as file:
        file.write('{"action":"hide","ids":[')  # killed in the middle of a line
    with client_of(reopen(), tmp_path / "out") as again:
        again.headers.update(FROM_PAGE)
        assert again.get("/state").json() == state
        assert state_after(again, action="redo")["classes"][0]["hidden"]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"action": "paint"}, "paint"),
        ({"action": "name", "id": 0}, "name.name: Field required"),
        ({"action": "name", "id": 0, "name": " "}, "a name is one line"),
        ({"action": "name", "id": 0, "name": "a", "path": "/etc"}, "name.path: Extra inputs"),
        ({"action": "name", "id": 10**30, "name": "a"}, "there is no class"),
        ({"action": "colour", "id": 0, "colour": [0, 0, 256]}, "less than or equal to 255"),
        ({"action": "merge", "into": 0, "others": [0]}, "cannot become part of itself"),
        ({"action": "hide", "ids": []}, "at least 1 item"),
        ({"action": "take", "classes": []}, "take"),
        ({"action": "correct", "image": "../x", "point": [0, 0], "from": [0], "to": 1}, "correct"),
        ([1], ""),
    ],
)
def test_an_action_that_makes_no_sense(client: TestClient, action: object, message: str) -> None:
    before = client.get("/state").json()
    response = client.post("/actions", json=action)
    assert response.status_code == 422
    assert message in response.json()["error"]
    assert client.get("/state").json() == before
    assert client.post("/actions", content=b"\xff{").status_code == 422


def plane(client: TestClient, path: str) -> np.ndarray:
    response = client.get(path)
    shape = [int(response.headers[f"X-{name}"]) for name in ("Planes", "Height", "Width")]
    return np.frombuffer(response.content, f"<u{response.headers['X-Bytes']}").reshape(shape)


def test_a_region_is_corrected(client: TestClient) -> None:
    assert plane(client, "/images/0/view.planes")[0].tolist() == HALVES.tolist()
    assert plane(client, "/images/0/view.planes")[1].tolist() == np.full((6, 8), 128).tolist()
    state_after(client, action="merge", into=1, others=[2])
    # 1 and 2 are one class now, so the point (7, 0) picks both; they become part of 3, which lies elsewhere.
    response = client.post("/images/0/corrections", json={"x": 7, "y": 0, "to": 3})
    assert response.json()["corrections"] == 1
    expected = HALVES.copy()
    expected[:3, 4:] = 3
    for size in ("view", "thumbnail"):
        assert plane(client, f"/images/0/{size}.planes")[0].tolist() == expected.tolist()
    state_after(client, action="undo")
    state_after(client, action="undo")
    state_after(client, action="redo")
    assert plane(client, "/images/0/view.planes")[0].tolist() == HALVES.tolist()
    assert client.post("/images/0/corrections", json={"x": 0, "y": 0, "to": 0}).status_code == 422
    assert client.post("/images/3/corrections", json={"x": 0, "y": 0, "to": 1}).status_code == 404
    assert client.post("/images/0/corrections", json={"x": 0, "y": 0, "to": "1"}).status_code == 422
    assert client.get("/state").json()["corrections"] == 0


def test_a_correction_keeps_its_region_whatever_is_merged_later(client: TestClient) -> None:
    client.post("/images/0/corrections", json={"x": 7, "y": 0, "to": 3})  # the part of 2 alone
    state_after(client, action="merge", into=1, others=[2])
    expected = HALVES.copy()
    expected[:3, 6:] = 3
    assert plane(client, "/images/0/view.planes")[0].tolist() == expected.tolist()


def finished(client: TestClient, path: str, **asked: Any) -> dict[str, Any]:
    client.post(path, json=asked)
    deadline = time.monotonic() + 60
    while (progress := client.get(path).json())["running"]:
        assert time.monotonic() < deadline
    return progress


def exported(client: TestClient) -> dict[str, Any]:
    return finished(client, "/export")


def test_a_split_that_fails_says_why_and_writes_nothing(client: TestClient, tmp_path: Path) -> None:
    progress = finished(client, "/split", cluster=1)  # the run of these tests has masks, but no network
    assert progress["running"] is False
    assert progress["out"] is None
    assert "run" in progress["error"]
    assert "training has not ended" in progress["error"]
    assert not (tmp_path / "run-split").exists()


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"cluster": 4}, 404),
        ({"cluster": -1}, 422),
        ({}, 422),
        ({"cluster": 0, "into": 1}, 422),
        ({"cluster": "0"}, 422),
    ],
)
def test_only_classes_that_are_there_are_split(client: TestClient, asked: dict[str, Any], status: int) -> None:
    assert client.post("/split", json=asked).status_code == status
    assert client.get("/split").json() == {"running": False, "done": 0, "total": 0, "error": None, "out": None}


def test_the_export_holds_every_decision(client: TestClient, tmp_path: Path) -> None:
    state_after(client, action="name", id=3, name="sky")
    state_after(client, action="merge", into=0, others=[1])
    state_after(client, action="hide", ids=[2])
    client.post("/images/1/corrections", json={"x": 3, "y": 4, "to": 1})
    progress = exported(client)
    assert progress == {"running": False, "done": 3, "total": 3, "error": None, "out": str(tmp_path / "out")}
    masks = {}
    for name in ("a/halves.png", "flat.png", "stripes.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.mode == "P"
            masks[name] = np.asarray(image).tolist()
    value = np.array([0, 0, 255, 3])
    assert masks["a/halves.png"] == value[HALVES].tolist()
    assert masks["flat.png"] == np.zeros((6, 8), int).tolist()  # corrected to 1, which is part of 0
    assert masks["stripes.png"] == value[STRIPES].tolist()
    classes = Classes.read(tmp_path / "out/classes.json")
    assert (classes.entries[3].name, classes.entries[1].merged_into, classes.entries[2].hidden) == ("sky", 0, True)
    assert exported(client)["done"] == 3  # again, over the first


def test_an_export_that_fails_says_why(client: TestClient, case: tuple[Path, Path]) -> None:
    (case[0] / "review/masks/flat.png").write_bytes(b"")
    progress = exported(client)
    assert progress["done"] == 1
    assert "flat.png: is not a PNG that can be read" in progress["error"]


def test_pictures_are_small_and_made_once(client: TestClient, case: tuple[Path, Path]) -> None:
    for path in ("/images/0/thumbnail.jpg", "/images/0/view.jpg", "/clusters/3/1.jpg"):
        response = client.get(path)
        assert (response.status_code, response.headers["content-type"]) == (200, "image/jpeg")
        assert response.content.startswith(b"\xff\xd8")
    kept = {path.relative_to(case[0] / "review/.thumbnails").as_posix() for path in case[0].rglob("*.jpg")}
    assert kept == {"a/halves.png.jpg", "a/halves.png.3.jpg"}  # of cluster 3, flat.png holds most and comes first
    (case[1] / "a/halves.png").unlink()
    assert client.get("/images/0/view.jpg").status_code == 422


def test_pages_of_images(client: TestClient) -> None:
    found = client.get("/images?search=FLAT&order=uncertain").json()
    assert found == {"total": 1, "images": [{"index": 1, "file": "flat.png", "confidence": 0.902, "corrections": 0}]}
    assert client.get("/images?start=-1").status_code == 422
    assert client.get("/images?order=size").status_code == 422
    assert client.get("/images?start=7").json() == {"total": 3, "images": []}
