"""A run that is killed wherever it touches a file, or at any moment, goes on to the results of an unbroken one."""

import os
import random
import shutil
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from watched_runs import NEVER, kill, same_run, start, stop, tiny

from contextseg.errors import RunError
from contextseg.run_folder import RunFolder
from contextseg.training.fit import fit


def test_killed_again_and_again(photos: Path, tmp_path: Path, unbroken: RunFolder, pytestconfig: pytest.Config) -> None:
    """Half of the kills before a random file operation, half at a random time; each run until it is through."""
    rng, n_kills = random.Random(0), pytestconfig.getoption("kills")
    began, whole = time.perf_counter(), start(photos, tmp_path / "whole", tiny(), NEVER, kill)
    assert whole.end() == 0
    duration_s, n_touches = time.perf_counter() - began, len(whole.touched)
    places: list[str] = []
    n_runs = 0
    while len(places) < n_kills:
        out = tmp_path / f"run{n_runs}"
        settings = tiny(checkpoint_every_s=(300.0, 1e-9)[n_runs % 2])  # at the start of an epoch, or at each step
        while not (out / "weights.safetensors").exists():
            by_time = rng.random() < 0.5
            run = start(photos, out, settings, NEVER if by_time else rng.randint(1, n_touches), kill)
            if by_time:
                run.process.join(rng.uniform(0, duration_s))
                run.process.kill()
            if run.end() != 0:
                assert run.process.exitcode == -signal.SIGKILL
                places.append("any time" if by_time else run.touched[-1])
        same_run(unbroken, RunFolder.open(out))
        n_runs += 1
    print(f"{len(places)} kills in {n_runs} runs:", dict(Counter(places).most_common()))


def test_killed_before_each_line_of_metrics(photos: Path, tmp_path: Path, unbroken: RunFolder) -> None:
    """An epoch's own line, too."""
    settings = tiny(checkpoint_every_s=1e-9)
    whole = start(photos, tmp_path / "whole", settings, NEVER, kill)
    assert whole.end() == 0
    lines = [place for place, name in enumerate(whole.touched, 1) if name == "metrics.jsonl"]
    assert len(lines) == 2 * (2 + 1)
    for place in lines:
        out = tmp_path / f"killed{place}"
        assert start(photos, out, settings, place, kill).end() == -signal.SIGKILL
        same_run(unbroken, fit(photos, out, settings, resume=True))


def test_two_runs_in_one_folder(photos: Path, tmp_path: Path, unbroken: RunFolder) -> None:
    """The second is refused while the first lives, and goes on with the work of the first once that is dead."""
    first = start(photos, tmp_path / "run", tiny(), ".weights.safetensors.part", stop)
    first.read_until(".weights.safetensors.part")
    with pytest.raises(RunError, match="run: another process is training here; wait until it ends, or give another"):
        fit(photos, tmp_path / "run", tiny(), resume=True)
    with pytest.raises(RunError, match="is not empty"):
        fit(photos, tmp_path / "run", tiny())
    first.process.kill()
    first.process.join()
    same_run(unbroken, fit(photos, tmp_path / "run", tiny(), resume=True))


def test_a_line_of_metrics_that_was_cut_is_written_again(photos: Path, tmp_path: Path, unbroken: RunFolder) -> None:
    killed = start(photos, tmp_path / "run", tiny(), ".classes.json.part", kill)
    assert killed.end() == -9
    metrics = tmp_path / "run" / "metrics.jsonl"
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    metrics.write_bytes(metrics.read_bytes()[:-7])
    same_run(unbroken, fit(photos, tmp_path / "run", tiny(), resume=True))


def test_more_epochs_that_are_killed_go_on_and_the_earlier_weights_stay(
    photos: Path, tmp_path: Path, unbroken: RunFolder
) -> None:
    """As long as the new weights are not there, those of fewer epochs are a result that can be used."""
    run = fit(photos, tmp_path / "run", tiny(epochs=1))
    earlier = run.weights.read_bytes()
    assert start(photos, run.path, tiny(), ".weights.safetensors.part", kill).end() == -9
    assert run.weights.read_bytes() == earlier
    same_run(unbroken, fit(photos, run.path, tiny(), resume=True))


def test_images_that_vanish_while_they_are_listed_are_left_out(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    run = start(
        tmp_path / "photos", tmp_path / "run", tiny(), "0000.png", partial(os.remove, tmp_path / "photos/0003.png")
    )
    assert run.end() == 0
    left_out = RunFolder.open(tmp_path / "run").read_json("meta.json")["left_out"]
    assert left_out == [{"file": "0003.png", "reason": "does not exist"}]


def test_images_that_vanish_or_change_later_do_not_touch_the_run(
    photos: Path, tmp_path: Path, unbroken: RunFolder
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    run = start(
        tmp_path / "photos",
        tmp_path / "run",
        tiny(),
        ".checkpoint.safetensors.part",
        partial(spoil, tmp_path / "photos"),
    )
    assert run.end() == 0
    assert len(list((tmp_path / "photos").iterdir())) == 3
    same_run(unbroken, RunFolder.open(tmp_path / "run"))


def spoil(folder: Path) -> None:
    (folder / "0001.png").write_bytes(b"no image")
    (folder / "0002.png").unlink(missing_ok=True)
