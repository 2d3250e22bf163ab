"""The verb `review`: masks that are missing are predicted, then the page is served until Ctrl-C."""

import secrets
import socket
from pathlib import Path

import uvicorn
from rich.console import Console

from contextseg.errors import RunError
from contextseg.review.app import create_app
from contextseg.review.collection import missing, open_collection
from contextseg.review.history import History
from contextseg.review.jobs import ExportJob, SplitJob
from contextseg.review.session import Review
from contextseg.run_folder import RunFolder


def review(
    run: Path,
    images: Path,
    *,
    masks: Path | None = None,
    port: int = 8765,
    device: str = "cpu",
    console: Console | None = None,
) -> None:
    """Serve the page on which a person looks at a run, names, merges, hides and corrects; until it is interrupted.

    Decisions are kept in ``RUN/review/log.jsonl`` and in classes.json; the exported masks in
    ``RUN/review/export/masks``.

    Args:
        run: a finished run.
        images: a folder that is searched with its subfolders, or one image.
        masks: a folder of raw masks of these images, as ``predict(..., raw=True, confidence=True)`` writes them. By
            default ``RUN/review/masks``, where those that are missing are predicted first.
        port: on 127.0.0.1; 0 for any that is free.
        device: where the network runs.
        console: where the address and progress are shown; nowhere by default.

    Raises:
        RunError: the folder holds no run, the run is not finished, the port is in use, or the log makes no sense.
        ClassesError: classes.json is malformed.
        DataError: there are no images, or a mask cannot be used.
    """
    console = console or Console(quiet=True)
    with _listen(port) as listener:
        session = open_review(run, images, masks=masks, device=device, console=console)
        port, token = listener.getsockname()[1], secrets.token_urlsafe(32)
        export = ExportJob(session, run / "review" / "export" / "masks")
        split = SplitJob(run, images, device)
        app = create_app(session, export, split, title=run.resolve().name, token=token, cookie=f"contextseg_{port}")
        console.print(f"open http://127.0.0.1:{port}/?token={token}", highlight=False, soft_wrap=True)
        console.print("Ctrl-C ends; every decision is kept at once")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def open_review(run: Path, images: Path, *, masks: Path | None = None, device: str = "cpu", console: Console) -> Review:
    """Return the review of a run, after the masks that are missing have been predicted; see `review`."""
    folder = RunFolder.open(run)
    settings, kept = folder.settings(), run / "review"
    if masks is None:
        masks = kept / "masks"
        if missing(images, masks):
            from contextseg import verbs  # imports torch, which is not needed once the masks are there
            from contextseg.progress import tell_left_out

            options = {"raw": True, "resume": True, "confidence": True}
            tell_left_out(console, verbs.predict(run, images, masks, **options, device=device, console=console))
    max_pixels = settings.data.max_pixels
    collection = open_collection(
        images, masks, settings.n_classes, kept / "counts.npz", max_pixels=max_pixels, console=console
    )
    return Review(collection, History(kept / "log.jsonl", folder.classes), kept / ".thumbnails")


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise RunError(f"port {port}: cannot be used: {error}; --port 0 takes any that is free") from error
