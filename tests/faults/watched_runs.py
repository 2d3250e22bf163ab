"""A run of a second, in a process of its own that can be killed or stopped wherever it touches a file."""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from contextseg.run_folder import RunFolder
from contextseg.settings import Settings, make_settings
from contextseg.training.fit import fit

# Its server imports torch once; a run is a fork of it, without the threads of the process that runs the tests.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["contextseg.training.fit"])
TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir"}
NEVER = 10**9


def tiny(**training: object) -> Settings:
    return make_settings(
        {
            "n_classes": 3,
            "data": {"image_px": 32},
            "views": {"frame_px": 32},
            "backbone": {"name": "test_resnet"},
            "clustering": {"max_points": 500, "n_restarts": 1, "max_iter": 5},
            "context": {"clusters_per_class": 1, "n_partitions": 2, "embedding": {"dim": 8}, "guidance": {"grid": 4}},
            "training": {"epochs": 2, "batch_size": 2} | training,
        }
    )


def start(photos: Path, out: Path, settings: Settings, at: int | str, how: Callable[[], None]) -> "Watched":
    """Start a run, or go on with it, in a process that does `how` once it touches its files.

    Args:
        photos: the images; they are watched too.
        out: the run.
        settings: of the run.
        at: before the file that is touched as the n-th, or first has this name. A number too high is never reached.
        how: what is done there.
    """
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_run, args=(photos, out, settings, at, how, sender), daemon=True)
    process.start()
    sender.close()
    return Watched(process, receiver)


class Watched:
    """A run in another process, and the names of the files that it has touched so far."""

    def __init__(self, process: BaseProcess, receiver: Connection) -> None:
        self.process = process
        self.receiver = receiver
        self.touched: list[str] = []

    def read_until(self, name: str) -> None:
        """Wait until a file has been touched."""
        while name not in self.touched:
            self.touched.append(self.receiver.recv())

    def end(self) -> int:
        """Wait for the end; returns 0 or the negative number of the signal that has killed it."""
        try:
            while True:
                self.touched.append(self.receiver.recv())
        except EOFError:
            self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _run(
    photos: Path, out: Path, settings: Settings, at: int | str, how: Callable[[], None], sender: Connection
) -> None:
    torch.set_num_threads(1)
    watched, n_touched = (str(photos), str(out)), 0

    def touch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal n_touched
        if event in TOUCHES and str(arguments[0]).startswith(watched):
            name = Path(str(arguments[0])).name
            n_touched += 1
            sender.send(name)
            if at in {n_touched, name}:
                how()

    sys.addaudithook(touch)
    fit(photos, out, settings, resume=(out / "settings.yaml").exists())


def same_run(first: RunFolder, second: RunFolder) -> None:
    """Both have the same results, bit by bit, and no other files."""
    for name in ("weights.safetensors", "classes.json"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes(), name
    metrics = [[line | {"images_per_s": None} for line in run.metrics()] for run in (first, second)]
    assert metrics[0] == metrics[1]
    assert json.loads((second.path / "meta.json").read_text())["train_s"] > 0
    names = [{path.name for path in run.path.iterdir() if path.name != ".lock"} for run in (first, second)]
    assert names[0] == names[1]
