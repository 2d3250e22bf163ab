"""A run that is broken off, by any means, ends with the weights and the losses of an unbroken one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from interruption import interrupt_after
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file

from contextseg.classes import Classes
from contextseg.errors import RunError, TrainingError, WriteError
from contextseg.methods import METHODS
from contextseg.methods.stego import Stego
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings, make_settings
from contextseg.training import loop
from contextseg.training.fit import fit
from contextseg.training.images import SiameseSource
from contextseg.training.stopping import InterruptedRunError
from contextseg.views.siamese import SiameseBatch

OWN = {
    "picie": {"dim": 16},
    "context": {
        "clusters_per_class": 2,
        "n_draws": 2,
        "n_partitions": 2,
        "embedding": {"dim": 16},
        "guidance": {"grid": 8},
    },
}
PEERS = {
    "picie": {"dim": 8, "overclusters": 9},
    "mdc": {"dim": 8},
    "iic": {"dim": 8, "displacement": 1},
    "densesiam": {"dim": 8, "auxiliary_clusters": 6, "region_from_epoch": 1},
    "stego": {"dim": 8, "points": 4, "neighbours": 3},
}


def tiny(method: str = "context", own: dict[str, object] | None = None, **training: object) -> Settings:
    return make_settings(
        {
            "n_classes": 4,
            "method": method,
            "data": {"image_px": 64},
            "views": {"frame_px": 64},
            "backbone": {"name": "test_resnet", "options": {"drop_rate": 0.2, "drop_path_rate": 0.2}},
            "clustering": {"max_points": 2000, "n_restarts": 1},
            method: OWN[method] if own is None else own,
            "training": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3} | training,
        }
    )


@pytest.fixture(scope="module", params=OWN)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def unbroken(method: str, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(scenes, tmp_path_factory.mktemp("unbroken") / "run", tiny(method))


def same_run(first: RunFolder, second: RunFolder) -> None:
    weights = load_file(first.weights), load_file(second.weights)
    assert weights[0].keys() == weights[1].keys()
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[1][name]), name
    losses = [[(m["epoch"], m.get("step"), m["loss"]) for m in run.metrics()] for run in (first, second)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", PEERS)
def test_peers_resume_inside_an_epoch_and_after_it(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Their own buffers, optimisers and draws are in the checkpoint."""
    whole = fit(scenes, tmp_path / "whole", tiny(name, PEERS[name]))
    fit(scenes, tmp_path / "longer", tiny(name, PEERS[name], epochs=1))
    same_run(whole, fit(scenes, tmp_path / "longer", tiny(name, PEERS[name]), resume=True))
    interrupt_after(5, monkeypatch)
    with pytest.raises(InterruptedRunError):
        fit(scenes, tmp_path / "broken", tiny(name, PEERS[name]))
    monkeypatch.undo()
    same_run(whole, fit(scenes, tmp_path / "broken", tiny(name, PEERS[name]), resume=True))


def test_a_step_shows_the_partners_that_the_method_asks_for(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, n_shown = Stego.forward, 0

    def watched(self: Stego, batch: SiameseBatch) -> dict[str, torch.Tensor]:
        nonlocal n_shown
        assert batch.partners.indices == self.partners(batch.indices, epoch=n_shown // 3)  # 3 steps an epoch
        assert not any(own == other for own, other in zip(batch.indices, batch.partners.indices, strict=True))
        assert batch.partners.first_B3hw.shape == batch.first_B3hw.shape
        n_shown += 1
        return forward(self, batch)

    monkeypatch.setattr(Stego, "forward", watched)
    fit(scenes, tmp_path / "run", tiny("stego", PEERS["stego"]))
    assert n_shown == 6


def test_metrics_have_every_step_and_every_epoch(unbroken: RunFolder) -> None:
    places = [(line["epoch"], line.get("step")) for line in unbroken.metrics()]
    # 12 images in batches of 4 are 3 steps; the line without a step closes the epoch
    assert places == [(0, 0), (0, 1), (0, 2), (0, None), (1, 0), (1, 1), (1, 2), (1, None)]
    assert {"loss", "within", "cross"} <= unbroken.metrics()[0].keys()
    assert {"loss", "cluster_use", "learning_rate", "images_per_s"} <= unbroken.metrics()[3].keys()


def test_same_seed_same_run(scenes: Path, tmp_path: Path, unbroken: RunFolder, method: str) -> None:
    same_run(unbroken, fit(scenes, tmp_path / "run", tiny(method)))


def test_other_seed_other_run(scenes: Path, tmp_path: Path, unbroken: RunFolder, method: str) -> None:
    other = fit(scenes, tmp_path / "run", tiny(method).model_copy(update={"seed": 1}))
    assert other.metrics()[0]["loss"] != unbroken.metrics()[0]["loss"]


@pytest.mark.parametrize("n_steps_before", [1, 3, 5])
def test_interrupt_saves_and_resume_replays_nothing(
    scenes: Path, tmp_path: Path, unbroken: RunFolder, method: str, monkeypatch: pytest.MonkeyPatch, n_steps_before: int
) -> None:
    interrupt_after(n_steps_before, monkeypatch)
    with pytest.raises(InterruptedRunError, match="--resume goes on"):
        fit(scenes, tmp_path / "run", tiny(method))
    monkeypatch.undo()
    run = RunFolder.open(tmp_path / "run")
    assert sum("step" in line for line in run.metrics()) == n_steps_before
    same_run(unbroken, fit(scenes, tmp_path / "run", tiny(method), resume=True))
    assert min(line["images_per_s"] for line in run.metrics() if "step" not in line) > 0


def test_interrupt_while_clustering_resumes_at_the_start_of_the_epoch(
    scenes: Path, tmp_path: Path, unbroken: RunFolder, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = SiameseSource.batches

    def interrupted(source: SiameseSource, epoch: int, first_step: int = 0) -> object:
        for number, batch in enumerate(batches(source, epoch, first_step)):
            if epoch == 1 and number == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(SiameseSource, "batches", interrupted)
    with pytest.raises(InterruptedRunError, match="state is saved"):
        fit(scenes, tmp_path / "run", tiny(method))
    monkeypatch.undo()
    same_run(unbroken, fit(scenes, tmp_path / "run", tiny(method), resume=True))


def test_interrupt_while_a_batch_is_made_keeps_every_step(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, batches = tiny("iic", PEERS["iic"], batch_size=2), SiameseSource.batches

    def interrupted(source: SiameseSource, epoch: int, first_step: int = 0) -> Iterator[SiameseBatch]:
        for step, batch in enumerate(batches(source, epoch, first_step), start=first_step):
            if (epoch, step) == (1, 4):
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(SiameseSource, "batches", interrupted)
        with pytest.raises(InterruptedRunError, match="state is saved"):
            fit(scenes, tmp_path / "broken", settings)
    run = RunFolder.open(tmp_path / "broken")
    with safe_open(run.checkpoint, framework="pt") as file:
        position = json.loads(file.metadata()["position"])
    last = run.metrics()[-1]
    assert (position["epoch"], position["step"]) == (last["epoch"], last["step"] + 1) == (1, 5)  # of 6 steps
    same_run(fit(scenes, tmp_path / "whole", settings), fit(scenes, run.path, settings, resume=True))


@pytest.mark.parametrize("checkpoint_every_s", [1e-9, 300.0])
def test_kill_9_inside_an_epoch(
    scenes: Path, tmp_path: Path, unbroken: RunFolder, method: str, checkpoint_every_s: float
) -> None:
    # once with a checkpoint after each step, once with only the one at the start of the epoch
    settings = tiny(method, checkpoint_every_s=checkpoint_every_s)
    (tmp_path / "settings.yaml").write_text(settings.to_yaml())
    run, place = tmp_path / "run", (1, 1)
    command = [sys.executable, "-c", _FIT, str(scenes), str(run), str(tmp_path / "settings.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _wait_until_logged(run / "metrics.jsonl", place, process)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert not (run / "weights.safetensors").exists(), "the run ended before it was killed"
    same_run(unbroken, fit(scenes, run, settings, resume=True))


# The pause after each line of metrics gives the test the time to kill in the middle of an epoch.
_FIT = """
import sys, time
from pathlib import Path
import torch
from contextseg.run_folder import RunFolder
from contextseg.settings import load_settings, make_settings
from contextseg.training.fit import fit

torch.set_num_threads(1)
log = RunFolder.log
def slow_log(run, **values):
    log(run, **values)
    if values["epoch"] == 1:
        time.sleep(1)
RunFolder.log = slow_log
fit(Path(sys.argv[1]), Path(sys.argv[2]), make_settings(load_settings(Path(sys.argv[3]))))
"""


def _wait_until_logged(path: Path, place: tuple[int, int], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, process.stderr.read().decode()
        lines = path.read_text().splitlines() if path.exists() else []
        if any((line.get("epoch"), line.get("step")) == place for line in map(json.loads, lines)):
            return
        time.sleep(0.05)
    raise AssertionError(f"{place} was not reached in 120 s")


def test_more_epochs_go_on_from_a_finished_run(scenes: Path, tmp_path: Path, method: str) -> None:
    # a learning rate that falls towards the end knows where the end is, so that both runs differ: not here
    unbroken = fit(scenes, tmp_path / "unbroken", tiny(method, epochs=2, decay=0.0))
    fit(scenes, tmp_path / "run", tiny(method, epochs=1, decay=0.0))
    same_run(unbroken, fit(scenes, tmp_path / "run", tiny(method, epochs=2, decay=0.0), resume=True))


def test_the_learning_rate_falls_on_from_where_a_run_was(scenes: Path, tmp_path: Path) -> None:
    run = fit(scenes, tmp_path / "run", tiny("context", epochs=1))
    fit(scenes, run.path, tiny("context", epochs=2), resume=True)
    rates = [line["learning_rate"] for line in run.metrics() if "step" not in line]
    # 3 steps an epoch: the last of 3 has 1/3 of training left, over a half; the last of 6 has 1/6
    assert rates == pytest.approx([1e-3 * 2 / 3, 1e-3 * 1 / 3])


def decide(run: RunFolder) -> Classes:
    """Name, merge and colour classes, and leave what `review` leaves; return the classes."""
    classes = Classes.read(run.classes).rename({0: "sky"}).merge(1, [2]).recolour({3: (1, 2, 3)})
    classes.write(run.classes)
    (run.path / "review" / "masks").mkdir(parents=True)
    (run.path / "review" / "log.jsonl").write_text("a correction\n")
    return classes


def test_decisions_stay_where_clusters_do_and_masks_of_earlier_weights_go(scenes: Path, tmp_path: Path) -> None:
    run = fit(scenes, tmp_path / "run", tiny("iic", PEERS["iic"], epochs=1))
    classes = decide(run)
    for name in ("scores.json", "scores-knn.json", "report.html"):
        (run.path / name).write_text("of one epoch")
    fit(scenes, run.path, tiny("iic", PEERS["iic"], epochs=2), resume=True)
    assert not list(run.path.glob("scores*")) + list(run.path.glob("report*"))
    assert Classes.read(run.classes) == classes
    assert [path.name for path in (run.path / "review").iterdir()] == ["log.jsonl"]


def test_decisions_on_clusters_that_are_made_afresh_are_set_aside(scenes: Path, tmp_path: Path) -> None:
    run, longer = fit(scenes, tmp_path / "run", tiny("picie", epochs=1)), tiny("picie", epochs=2)
    classes, console = decide(run), Console(record=True, quiet=False, width=500)
    obstacle = run.path / ".weights.safetensors.part"
    obstacle.mkdir()
    with pytest.raises(WriteError):  # as late as it can be: the new classes are there, the new weights are not
        fit(scenes, run.path, longer, resume=True, console=console)
    obstacle.rmdir()
    fit(scenes, run.path, longer, resume=True)
    assert Classes.read(run.classes) == Classes.numbered(4)
    assert Classes.read(run.path / "classes-1-epochs.json") == classes
    assert not (run.path / "review").exists()
    assert (run.path / "review-1-epochs" / "log.jsonl").read_text() == "a correction\n"
    assert f"classes.json of those before is now {run.path / 'classes-1-epochs.json'}" in console.export_text()


def test_which_clusters_last() -> None:
    """Those that a method learns itself, unless it begins anew; where nothing is trained, they are the same again."""
    own = PEERS | OWN
    lasting = {name: METHODS[name](tiny(name, own.get(name, {}))).lasting_clusters for name in METHODS}
    assert {name for name in METHODS if not lasting[name]} == {"picie", "mdc", "context"}  # from random weights
    taught = OWN["context"] | {"guidance": {"grid": 8, "teacher": "start"}}
    assert METHODS["context"](tiny("context", taught)).lasting_clusters


def test_resume_refuses_other_settings_other_images_and_finished_runs(scenes: Path, tmp_path: Path) -> None:
    settings = tiny(epochs=1)
    fit(scenes, tmp_path / "run", settings)
    with pytest.raises(RunError, match="this run is finished"):
        fit(scenes, tmp_path / "run", settings, resume=True)
    with pytest.raises(RunError, match=r"training\.learning_rate: 0\.001 then, 0\.5 now"):
        fit(scenes, tmp_path / "run", tiny(epochs=1, learning_rate=0.5), resume=True)
    with pytest.raises(RunError, match="is not empty"):
        fit(scenes, tmp_path / "run", settings)
    with pytest.raises(RunError, match="holds no run"):
        fit(scenes, tmp_path / "none", settings, resume=True)
    fewer = tmp_path / "images"
    fewer.mkdir()
    for path in sorted((scenes / "images").iterdir())[:8]:
        (fewer / path.name).write_bytes(path.read_bytes())
    with pytest.raises(RunError, match="12 then, 8 now"):
        fit(fewer, tmp_path / "run", tiny(epochs=2), resume=True)


def test_a_loss_that_is_not_finite_stops_before_the_weights(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextseg.methods.picie import Picie

    forward, n_calls = Picie.forward, 0

    def poisoned(self: Picie, batch: object) -> dict[str, torch.Tensor]:
        nonlocal n_calls
        n_calls += 1
        losses = forward(self, batch)
        return losses | {"loss": losses["loss"] * float("nan")} if n_calls == 3 else losses

    monkeypatch.setattr(Picie, "forward", poisoned)
    with pytest.raises(TrainingError, match=r"loss is nan at epoch 0, step 2 \(images .*\.png"):
        fit(scenes, tmp_path / "run", tiny("picie"))
    steps = [line["step"] for line in RunFolder.open(tmp_path / "run").metrics() if "step" in line]
    assert steps == [0, 1]


def test_collapse_is_told(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOW_HEALTH", 1.1)  # above any use, so that the warning must come
    console = Console(record=True, quiet=False, width=200)
    fit(scenes, tmp_path / "run", tiny(epochs=1), console=console)
    assert "the clusters are collapsing" in console.export_text()
