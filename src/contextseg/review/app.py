"""The web application: addresses, and what `Review` answers to them.

Images are asked for by index, never by path. The endpoints that read files are plain methods, which Starlette runs in
threads: as few at a time as `_MAX_THREADS`, so that memory does not grow with the requests.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Literal

import anyio.to_thread
import jinja2
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from contextseg.errors import ContextsegError
from contextseg.review.actions import REQUEST
from contextseg.review.guard import Guard
from contextseg.review.jobs import ExportJob, SplitJob
from contextseg.review.session import N_EXAMPLES, THUMBNAIL_PX, VIEW_PX, Review

PAGE_LENGTH = 48
"""Images that are shown at a time."""
_MAX_THREADS = 4
_HERE = Path(__file__).parent


class _Search(BaseModel):
    """Which images the page asks for."""

    start: int = Field(0, ge=0)
    search: str = Field("", max_length=200)
    order: Literal["name", "uncertain"] = "name"


class _Correction(BaseModel):
    """The region under a point of the mask, in pixels, becomes a class."""

    model_config = ConfigDict(extra="forbid", strict=True)

    x: int
    y: int
    to: int


class _Split(BaseModel):
    """A class becomes several, in a run of its own."""

    model_config = ConfigDict(extra="forbid", strict=True)

    cluster: int = Field(ge=0)
    into: int = Field(2, ge=2, le=20)


def create_app(review: Review, export: ExportJob, split: SplitJob, *, title: str, token: str, cookie: str) -> Starlette:
    """Return the application of one review.

    Args:
        review: what is looked at.
        export: writes its masks.
        split: divides its classes.
        title: of the page.
        token: who has it may see and change everything; see `Guard`.
        cookie: name of the cookie that holds it.
    """
    to = _Endpoints(review, export, split, title)
    return Starlette(
        routes=[
            Route("/", to.index),
            Route("/state", to.state),
            Route("/images", to.images),
            Route("/images/{index:int}/thumbnail.jpg", to.thumbnail),
            Route("/images/{index:int}/thumbnail.planes", to.small_planes),
            Route("/images/{index:int}/view.jpg", to.view),
            Route("/images/{index:int}/view.planes", to.planes),
            Route("/images/{index:int}/corrections", to.correct, methods=["POST"]),
            Route("/clusters/{cluster:int}/{number:int}.jpg", to.example),
            Route("/actions", to.act, methods=["POST"]),
            Route("/export", to.export_progress),
            Route("/export", to.export_start, methods=["POST"]),
            Route("/split", to.split_progress),
            Route("/split", to.split_start, methods=["POST"]),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(Guard, token=token, cookie=cookie), Middleware(GZipMiddleware, compresslevel=1)],
        exception_handlers={IndexError: _not_there, ContextsegError: _refused, ValidationError: _malformed},
        lifespan=_few_threads,
    )


class _Endpoints:
    """What each address answers, of one review and its two jobs."""

    def __init__(self, review: Review, export: ExportJob, split: SplitJob, title: str) -> None:
        self._review, self._export, self._split = review, export, split
        environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True)
        self._page = environment.get_template("page.html").render(
            title=title, n_images=len(review.collection.names), n_examples=N_EXAMPLES, page_length=PAGE_LENGTH
        )

    def index(self, request: Request) -> Response:
        return HTMLResponse(self._page)

    def state(self, request: Request) -> Response:
        return JSONResponse(self._review.state())

    def images(self, request: Request) -> Response:
        asked = _Search.model_validate(dict(request.query_params))
        return JSONResponse(
            self._review.page(asked.start, PAGE_LENGTH, search=asked.search, uncertain_first=asked.order == "uncertain")
        )

    def thumbnail(self, request: Request) -> Response:
        return _jpeg(self._review.thumbnail(request.path_params["index"]))

    def view(self, request: Request) -> Response:
        return _jpeg(self._review.view(request.path_params["index"]))

    def small_planes(self, request: Request) -> Response:
        return _planes(self._review, request.path_params["index"], THUMBNAIL_PX)

    def planes(self, request: Request) -> Response:
        return _planes(self._review, request.path_params["index"], VIEW_PX)

    def example(self, request: Request) -> Response:
        return _jpeg(self._review.example(request.path_params["cluster"], request.path_params["number"]))

    def export_progress(self, request: Request) -> Response:
        return JSONResponse(self._export.progress())

    def export_start(self, request: Request) -> Response:
        self._export.start()
        return JSONResponse(self._export.progress())

    def split_progress(self, request: Request) -> Response:
        return JSONResponse(self._split.progress())

    async def split_start(self, request: Request) -> Response:
        asked = _Split.model_validate_json(await request.body())
        if asked.cluster >= self._review.collection.n_clusters:
            raise IndexError(asked.cluster)
        self._split.start(asked.cluster, asked.into)
        return JSONResponse(self._split.progress())

    async def act(self, request: Request) -> Response:
        action = REQUEST.validate_json(await request.body())
        await run_in_threadpool(self._review.record, action)
        return JSONResponse(await run_in_threadpool(self._review.state))

    async def correct(self, request: Request) -> Response:
        asked = _Correction.model_validate_json(await request.body())
        index, point = request.path_params["index"], (asked.x, asked.y)
        await run_in_threadpool(self._review.correct, index, point, asked.to)
        return JSONResponse(await run_in_threadpool(self._review.state))


@asynccontextmanager
async def _few_threads(app: Starlette) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _MAX_THREADS
    yield


def _jpeg(content: bytes) -> Response:
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=300"})


def _planes(review: Review, index: int, longest_px: int) -> Response:
    """Answer with the planes one after the other, little-endian; the headers say their shape and the mask's size."""
    planes_Phw, (height, width) = review.planes(index, longest_px)
    shape = dict(zip(("X-Planes", "X-Height", "X-Width"), planes_Phw.shape, strict=True))
    shape |= {"X-Bytes": planes_Phw.dtype.itemsize, "X-Mask-Height": height, "X-Mask-Width": width}
    content = planes_Phw.astype(planes_Phw.dtype.newbyteorder("<")).tobytes()
    headers = {key: str(value) for key, value in shape.items()}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _not_there(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "there is no such image or cluster"}, HTTPStatus.NOT_FOUND)


def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY)


def _malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return JSONResponse({"error": f"{place}: {first['msg']}"}, HTTPStatus.UNPROCESSABLE_ENTITY)
