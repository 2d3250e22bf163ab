"""Runs of two processes are those of one with the same batches; one that is broken off goes on with one or with two."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from two_processes import Two, both

from contextseg import verbs
from contextseg.collectives import rank
from contextseg.data.scenes import write_scenes
from contextseg.errors import DataError, ProcessError, SettingsError
from contextseg.methods import METHODS
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings, make_settings
from contextseg.training.images import SiameseSource
from contextseg.training.stopping import InterruptedRunError
from contextseg.views.siamese import SiameseBatch

OWN = {
    "picie": {"dim": 16, "class_weights": "inverse"},
    "mdc": {"dim": 16},
    "context": {
        "clusters_per_class": 2,
        "n_draws": 2,
        "n_partitions": 2,
        # which images are not told where their cells lie is another draw in each process, as with dropout
        "embedding": {"dim": 16, "geometry_dropout": 0.0},
        "guidance": {"grid": 8, "teacher": "start"},
    },
}
ON = {
    # half precision, which some processors have, rounds by more than what is looked for here
    "cpu": ("frozen", {"accelerator": "cpu", "precision": "32-true"}),
    # the statistics of the batch are those of one process where SyncBatchNorm runs
    "cuda": ("batch", {"accelerator": "cuda", "precision": "32-true"}),
}
TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="PyTorch's SyncBatchNorm and NCCL need two GPUs")


def tiny(method: str = "context", device: str = "cpu", batch_norm: str | None = None, **training: object) -> Settings:
    of_device, own = ON[device]
    return make_settings(
        {
            "n_classes": 4,
            "method": method,
            "data": {"image_px": 64},
            "views": {"frame_px": 64},
            "backbone": {"name": "test_resnet", "batch_norm": batch_norm or of_device},
            "clustering": {"max_points": 2000, "n_restarts": 1},
            method: OWN[method],
            # Adam's step hangs on the sign of a gradient, so where it is 0 but for rounding, weights part at this rate
            "training": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-5, **own, **training},
        }
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 scenes: 13 of one shape, and one of another, of which a second process has no share."""
    root = tmp_path_factory.mktemp("two")
    write_scenes(root / "other", 1, seed=4, size=(64, 128))
    write_scenes(root / "set", 13, seed=3, size=(64, 96))
    for kind in ("images", "labels"):
        shutil.copy(root / "other" / kind / "0000.png", root / "set" / kind / "wide.png")
    return root / "set"


def centers_of(run: Path) -> dict[str, torch.Tensor]:
    """Return the products of all pairs of centres, of the clusters and of the final classes.

    The axes of an embedding that starts from principal components have no sign of their own; products do not see it.
    """
    stored = load_file(run / "checkpoint.safetensors") | load_file(run / "weights.safetensors")
    return {name: value @ value.mT for name, value in stored.items() if "centers" in name}


def backbone_of(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the backbone's weights, and the running means of their gradients as Adam has them."""
    stored = load_file(run / "checkpoint.safetensors")
    names = [
        name for name, _ in METHODS[RunFolder(run).settings().method](RunFolder(run).settings()).named_parameters()
    ]
    means = {name: stored[f"optimizer/{index}/exp_avg"] for index, name in enumerate(names) if "backbone" in name}
    return {name: value for name, value in stored.items() if "backbone" in name}, means


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in RunFolder.open(run).metrics() if "step" in line]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=TWO_GPUS)])
@pytest.mark.parametrize("method", OWN)
def test_two_processes_learn_what_one_learns(images: Path, tmp_path: Path, method: str, device: str) -> None:
    settings = tiny(method, device)
    verbs.fit(images, tmp_path / "one", settings)
    assert [run.path for run in both(verbs.fit, images, tmp_path / "two", settings)] == [tmp_path / "two"] * 2
    # float32 sums of other parts of the pixels: 1e-7 of each, and what follows from it in three steps
    assert len(losses(tmp_path / "one")) == 3
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    one, two = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one.keys() & {"method/holistic_ngg", "method/use_K"}:
        assert torch.equal(one[name], two[name]), name
    one, two = (centers_of(tmp_path / run) for run in ("one", "two"))
    assert len(one) == 2
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, atol=1e-4, rtol=0, msg=name)
    (one, gradients), (two, of_two) = (backbone_of(tmp_path / run) for run in ("one", "two"))
    assert gradients
    for name, expected in gradients.items():
        torch.testing.assert_close(of_two[name], expected, atol=1e-3 * float(expected.abs().max()), rtol=0, msg=name)
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, atol=3e-5, rtol=0, msg=name)  # three steps of 1e-5
    files = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == files
    assert [RunFolder(tmp_path / run).read_json("meta.json")["n_processes"] for run in ("one", "two")] == [1, 2]


@pytest.fixture(scope="module")
def unbroken(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a run of one process."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    verbs.fit(images, run, tiny(epochs=2))
    return losses(run)


def second_gets(number: int, images: Path, out: Path, settings: Settings) -> None:
    """Train, and let the second process get a signal before the fifth step."""
    batches = SiameseSource.batches

    def signalled(source: SiameseSource, epoch: int, first_step: int = 0) -> Iterator[SiameseBatch]:
        for step, batch in enumerate(batches(source, epoch, first_step), start=first_step):
            if rank() == 1 and (epoch, step) == (1, 1):
                os.kill(os.getpid(), number)
            yield batch

    SiameseSource.batches = signalled
    verbs.fit(images, out, settings)


def resumed_alone(images: Path, out: Path, settings: Settings) -> None:
    verbs.fit(images, out, settings, resume=True)


def resumed_by_both(images: Path, out: Path, settings: Settings) -> None:
    both(resumed_alone, images, out, settings)


@pytest.mark.parametrize("resume", [resumed_alone, resumed_by_both])
def test_a_process_is_killed_and_the_run_goes_on(
    images: Path, tmp_path: Path, unbroken: list[float], resume: Callable[..., None]
) -> None:
    settings = tiny(epochs=2, checkpoint_every_s=1e-9)
    two = Two(second_gets, signal.SIGKILL, images, tmp_path / "run", settings)
    error = two.result(0)
    assert isinstance(error, ProcessError)
    assert "goes on from its last checkpoint with --resume" in str(error)
    assert len(losses(tmp_path / "run")) == 4  # three steps of the first epoch, one of the second
    resume(images, tmp_path / "run", settings)
    assert losses(tmp_path / "run") == pytest.approx(unbroken, rel=1e-4)


def test_a_signal_to_one_stops_both_at_the_same_step(images: Path, tmp_path: Path, unbroken: list[float]) -> None:
    for error in both(second_gets, signal.SIGTERM, images, tmp_path / "run", tiny(epochs=2)):
        assert isinstance(error, InterruptedRunError)
    assert len(losses(tmp_path / "run")) == 5  # both end the step that they have the batch of
    resumed_by_both(images, tmp_path / "run", tiny(epochs=2))
    assert losses(tmp_path / "run") == pytest.approx(unbroken, rel=1e-4)


def evaluated(run: Path, data: Path) -> tuple[list[list[int]], int]:
    scores = verbs.evaluate(run, data)
    return scores.matrix.tolist(), scores.n_images


@pytest.fixture(scope="module")
def lab_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("lab") / "run"
    values = {"n_classes": 4, "method": "lab", "data": {"image_px": 64}, "views": {"frame_px": 64}}
    verbs.fit(images, run, make_settings(values | {"clustering": {"max_points": 2000}}))
    return run


def test_final_clusters_are_the_same(images: Path, tmp_path: Path, lab_run: Path) -> None:
    both(verbs.fit, images, tmp_path / "two", RunFolder(lab_run).settings())
    one, two = (load_file(run / "weights.safetensors")["centers"] for run in (lab_run, tmp_path / "two"))
    assert torch.equal(one, two)  # of a method that is not trained, the points are the very same


def test_no_pixel_is_counted_twice_in_a_set_of_odd_size(images: Path, tmp_path: Path, lab_run: Path) -> None:
    for kind in ("images", "labels"):
        shutil.copytree(images / kind, tmp_path / "odd" / kind, ignore=shutil.ignore_patterns("0012.png"))
    expected = evaluated(lab_run, tmp_path / "odd")
    assert expected[1] == 13
    assert np.sum(expected[0]) == 12 * 64 * 96 + 64 * 128  # no label of these is ignored
    assert both(evaluated, lab_run, tmp_path / "odd") == [expected] * 2


def test_each_mask_is_written_once_and_both_tell_what_is_left_out(images: Path, tmp_path: Path, lab_run: Path) -> None:
    shutil.copytree(images / "images", tmp_path / "in")
    for name in ("0003.png", "0008.png", "0009.png"):
        (tmp_path / "in" / name).write_bytes(b"")
    expected = verbs.predict(lab_run, tmp_path / "in", tmp_path / "one")
    assert [Path(name).name for name, _ in expected] == ["0003.png", "0008.png", "0009.png"]
    assert both(verbs.predict, lab_run, tmp_path / "in", tmp_path / "two") == [expected] * 2
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert len(names) == 11 + 2  # and classes.json and .clusters
    assert {path.name for path in (tmp_path / "two").iterdir()} == names
    for name in names:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_label_that_one_cannot_read_ends_both(images: Path, tmp_path: Path, lab_run: Path) -> None:
    shutil.copytree(images, tmp_path / "set")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "set" / "labels" / "0012.png")  # of the second's share
    first, second = both(evaluated, lab_run, tmp_path / "set")
    assert isinstance(first, ProcessError)
    assert isinstance(second, DataError)
    assert "0012.png: is 5 x 5 pixels" in str(second)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 5}, "a batch of 5 images cannot .* by 2 processes; give training.batch_size=4, or another"),
        ({"batch_size": 16}, "a batch of 13 images cannot .* by 2 processes; give training.batch_size=12, or another"),
        ({"batch_norm": "batch"}, "on GPUs alone; on CPUs give backbone.batch_norm=frozen"),
    ],
)
def test_settings_that_two_processes_cannot_train_with(
    images: Path, tmp_path: Path, values: dict[str, object], message: str
) -> None:
    shutil.copytree(images / "images", tmp_path / "in", ignore=shutil.ignore_patterns("wide.png"))
    for error in both(verbs.fit, tmp_path / "in", tmp_path / "run", tiny(**values)):
        assert isinstance(error, SettingsError)
        assert re.search(message, str(error))


def test_images_that_cannot_be_used_are_told_by_both(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for error in both(verbs.fit, tmp_path / "in", tmp_path / "run", tiny()):
        assert isinstance(error, DataError)
        assert "no images found" in str(error)


def test_torchrun(images: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(tiny().to_yaml())
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "contextseg",
    ]
    command = [*torchrun, "fit", str(images), "-o", str(tmp_path / "run"), "--config", str(tmp_path / "settings.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1: loss") == done.stdout.count("finished: ") == 1
    assert RunFolder.open(tmp_path / "run").read_json("meta.json")["n_processes"] == 2
    assert not (tmp_path / "run" / "cache").exists()
