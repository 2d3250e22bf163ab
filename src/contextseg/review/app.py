"""The web application: addresses, and what `Review` answers to them.

Images are asked for by index, never by path. The endpoints that read files are plain functions, which Starlette runs in
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
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True)
    page = environment.get_template("page.html").render(
        title=title, n_images=len(review.collection.names), n_examples=N_EXAMPLES, page_length=PAGE_LENGTH
    )

    def index(request: Request) -> Response:
        return HTMLResponse(page)

    def state(request: Request) -> Response:
        return JSONResponse(review.state())

    def images(request: Request) -> Response:
        asked = _Search.model_validate(dict(request.query_params))
        return JSONResponse(
            review.page(asked.start, PAGE_LENGTH, search=asked.search, uncertain_first=asked.order == "uncertain")
        )

    def thumbnail(request: Request) -> Response:
        return _jpeg(review.thumbnail(request.path_params["index"]))

    def view(request: Request) -> Response:
        return _jpeg(review.view(request.path_params["index"]))

    def small_planes(request: Request) -> Response:
        return _planes(review, request.path_params["index"], THUMBNAIL_PX)

    def planes(request: Request) -> Response:
        return _planes(review, request.path_params["index"], VIEW_PX)

    def example(request: Request) -> Response:
        return _jpeg(review.example(request.path_params["cluster"], request.path_params["number"]))

    def export_progress(request: Request) -> Response:
        return JSONResponse(export.progress())

    def export_start(request: Request) -> Response:
        export.start()
        return JSONResponse(export.progress())

    def split_progress(request: Request) -> Response:
        return JSONResponse(split.progress())

    async def split_start(request: Request) -> Response:
        asked = _Split.model_validate_json(await request.body())
        if asked.cluster >= review.collection.n_clusters:
            raise IndexError(asked.cluster)
        split.start(asked.cluster, asked.into)
        return JSONResponse(split.progress())

    async def act(request: Request) -> Response:
        action = REQUEST.validate_json(await request.body())
        await run_in_threadpool(review.record, action)
        return JSONResponse(await run_in_threadpool(review.state))

    async def correct(request: Request) -> Response:
        asked = _Correction.model_validate_json(await request.body())
        await run_in_threadpool(review.correct, request.path_params["index"], (asked.x, asked.y), asked.to)
        return JSONResponse(await run_in_threadpool(review.state))

    return Starlette(
        routes=[
            Route("/", index),
            Route("/state", state),
            Route("/images", images),
            Route("/images/{index:int}/thumbnail.jpg", thumbnail),
            Route("/images/{index:int}/thumbnail.planes", small_planes),
            Route("/images/{index:int}/view.jpg", view),
            Route("/images/{index:int}/view.planes", planes),
            Route("/images/{index:int}/corrections", correct, methods=["POST"]),
            Route("/clusters/{cluster:int}/{number:int}.jpg", example),
            Route("/actions", act, methods=["POST"]),
            Route("/export", export_progress),
            Route("/export", export_start, methods=["POST"]),
            Route("/split", split_progress),
            Route("/split", split_start, methods=["POST"]),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(Guard, token=token, cookie=cookie), Middleware(GZipMiddleware, compresslevel=1)],
        exception_handlers={IndexError: _not_there, ContextsegError: _refused, ValidationError: _malformed},
        lifespan=_few_threads,
    )


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
