"""A run is a folder; everything later works from it, and it can be moved.

settings.yaml           the resolved settings
meta.json               versions, seed, start, data fingerprint, images that were left out, speed and memory
metrics.jsonl           one line per step and per epoch of training
pretraining/            of a run that starts so: the backbone's own metrics, checkpoint and weights
checkpoint.safetensors  the state of training, to resume from
weights.safetensors     the network and the cluster centres, once training has ended
classes.json            id, name and colour of each class, what it is merged into, whether it is hidden
scores.json             the last evaluation
scores-PROBE.json       that of a probe, linear or knn, which has read labels
review/                 decisions of a person and masks: see docs/review.md
"""

import json
from pathlib import Path
from typing import Any, Self

from contextseg.errors import RunError
from contextseg.files import write_atomically
from contextseg.settings import Settings, load_settings, make_settings


class RunFolder:
    """The files of one run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, settings: Settings) -> Self:
        """Start a run in a new or an empty folder.

        Raises:
            RunError: the folder holds something already.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path}: is not empty; give a new folder, or go on with the run that is there by --resume")
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        run.write_settings(settings)
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run that exists.

        Raises:
            RunError: the folder is missing or holds no run.
        """
        if not (path / "settings.yaml").is_file():
            raise RunError(f"{path}: holds no run (no settings.yaml); `contextseg fit IMAGES -o {path}` makes one")
        return cls(path)

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
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / name}: cannot be read: {error}") from error

    def write_json(self, name: str, content: Any) -> None:
        """Write one of the JSON files, whole or not at all."""
        write_atomically(self.path / name, (json.dumps(content, indent=1) + "\n").encode())

    def log(self, **values: Any) -> None:
        """Add a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl; a last line that a killed run left unfinished is not counted."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def keep_metrics_before(self, epoch: int, step: int) -> None:
        """Drop the lines at and after a position, which a resumed run is about to write again."""
        kept = [line for line in self.metrics() if (line["epoch"], line.get("step", float("inf"))) < (epoch, step)]
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())
