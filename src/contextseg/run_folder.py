"""A run is a folder; everything later works from it, and it can be moved.

settings.yaml           the resolved settings
meta.json               versions, seed, start, data fingerprint, images that were left out, date, speed and memory
choosing.json           the number of classes that was chosen, and by what, where nobody gave one
metrics.jsonl           one line per step and per epoch of training
pretraining/            of a run that starts so: the backbone's own metrics, checkpoint and weights
checkpoint.safetensors  the state of training, to resume from
weights.safetensors     the network and the cluster centres, once training has ended
classes.json            id, name and colour of each class, what it is merged into, whether it is hidden
scores.json             the last evaluation
scores-PROBE.json       that of a probe, linear or knn, which has read labels
review/                 decisions of a person and masks: see docs/review.md
report.html             the last page of `contextseg report`

classes-N-epochs.json and review-N-epochs/ are decisions on clusters that more epochs have replaced.
Names that begin with a dot (a lock, what a killed run was writing) belong to no result.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from contextseg.errors import RunError
from contextseg.files import write_atomically, write_errors
from contextseg.settings import Settings, load_settings, make_settings

FORMAT = 1
"""Of the folder, in meta.json; a version of contextseg reads the folders up to its own."""
_META = {"contextseg", "data", "start"}
_JSON_ERRORS = (ValueError, RecursionError)


class RunFolder:
    """The files of one run.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: Path, settings: Settings) -> Self:
        """Start a run in a new or an empty folder.

        Raises:
            RunError: the folder holds something already.
        """
        check_empty(path)
        run = cls(path)
        run.write_settings(settings)
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run that exists.

        Raises:
            RunError: the folder is missing or holds no run, or a newer version has made it.
        """
        run = cls(path)
        if not (run.path / "settings.yaml").is_file():
            raise RunError(f"{path}: holds no run (no settings.yaml); `contextseg fit IMAGES -o {path}` makes one")
        meta = run.meta() if (run.path / "meta.json").exists() else {}
        if meta.get("format", FORMAT) > FORMAT:
            raise RunError(
                f"{path}: was made by contextseg {meta['contextseg']}, in format {meta['format']}; "
                f"this version reads formats up to {FORMAT}, so install that one or a newer"
            )
        return run

    def discard(self) -> None:
        """Take back what `create` and the reading of images have made, so that the folder can be given again."""
        shutil.rmtree(self.path / "cache", ignore_errors=True)
        (self.path / "settings.yaml").unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder while the body runs; a process that dies lets go of it.

        Raises:
            RunError: another process is training here.
        """
        lock = FileLock(self.path / ".lock")
        with write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                raise RunError(
                    f"{self.path}: another process is training here; wait until it ends, or give another folder"
                ) from None
        try:
            yield
        finally:
            lock.release()

    @property
    def weights(self) -> Path:
        """The file of the finished network."""
        return self.path / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The file that training resumes from."""
        return self.path / "checkpoint.safetensors"

    @property
    def classes(self) -> Path:
        """The file of the classes: see `contextseg.classes`."""
        return self.path / "classes.json"

    def settings(self) -> Settings:
        """Read the resolved settings."""
        return make_settings(load_settings(self.path / "settings.yaml"))

    def write_settings(self, settings: Settings) -> None:
        """Write the resolved settings."""
        write_atomically(self.path / "settings.yaml", settings.to_yaml().encode())

    def read_json(self, name: str) -> Any:
        """Read one of the JSON files.

        Raises:
            RunError: it is missing or broken.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, *_JSON_ERRORS) as error:
            raise RunError(f"{self.path / name}: cannot be read: {error}") from error

    def meta(self) -> dict[str, Any]:
        """Read meta.json.

        Raises:
            RunError: it is missing or broken.
        """
        meta = self.read_json("meta.json")
        if not isinstance(meta, dict) or not meta.keys() >= _META or not isinstance(meta.get("format", FORMAT), int):
            raise RunError(f"{self.path / 'meta.json'}: is damaged; expected {', '.join(sorted(_META))} and the format")
        return meta

    def write_json(self, name: str, content: Any) -> None:
        """Write one of the JSON files, whole or not at all."""
        write_atomically(self.path / name, (json.dumps(content, indent=1) + "\n").encode())

    def trained_epochs(self) -> int | None:
        """Return the epochs behind the weights, None where there are none; a run that goes on has those of fewer.

        Raises:
            RunError: the file of weights is damaged.
        """
        if not self.weights.exists():
            return None
        try:
            with safe_open(self.weights, framework="numpy") as file:
                return int((file.metadata() or {}).get("epochs", self.settings().training.epochs))
        except (OSError, SafetensorError) as error:
            raise RunError(f"{self.weights}: is damaged: {error}; delete it, and --resume makes it again") from error

    def log(self, **values: Any) -> None:
        """Add a line to metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        with write_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl; a last line that a killed run left unfinished is not counted.

        Raises:
            RunError: a line is damaged.
        """
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [_metric(path, number, line) for number, line in enumerate(lines, 1) if line.endswith(b"\n")]

    def keep_metrics_before(self, epoch: int, step: int) -> None:
        """Drop the lines at and after a position, which a resumed run is about to write again."""
        kept = [line for line in self.metrics() if (line["epoch"], line.get("step", float("inf"))) < (epoch, step)]
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())


def _metric(path: Path, number: int, line: bytes) -> dict[str, Any]:
    with suppress(*_JSON_ERRORS, TypeError, KeyError):
        values = json.loads(line)
        if isinstance(values["epoch"], int) and isinstance(values.get("step", 0), int):
            return dict(values)
    raise RunError(f"{path}: line {number} is damaged; delete it")


def check_empty(path: Path) -> None:
    """Refuse a folder that holds something already.

    Raises:
        RunError: it does.
    """
    if path.exists() and (not path.is_dir() or any(not entry.name.startswith(".") for entry in path.iterdir())):
        raise RunError(f"{path}: is not empty; give a new folder, or go on with the run that is there by --resume")
