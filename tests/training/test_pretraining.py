"""Self-supervised pre-training: the objectives by hand, what it learns, how it resumes, how runs start from it."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from interruption import interrupt_after
from safetensors.torch import load_file, save_file

from contextseg import verbs
from contextseg.errors import LibraryError, RunError, SettingsError
from contextseg.methods.context import Context
from contextseg.models.backbone import N_DEEP, Backbone
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings, make_settings
from contextseg.training import loop
from contextseg.training.objectives import OBJECTIVES, Objective, spread
from contextseg.training.stopping import InterruptedRunError
from contextseg.views.siamese import SiameseBatch, siamese_batch

VIT = {"name": "test_vit", "options": {"patch_size": 8, "img_size": 64, "depth": 2, "embed_dim": 24, "num_heads": 2}}
RESNET = {"name": "test_resnet"}


def tiny(
    objective: str = "vicregl",
    epochs: int = 2,
    backbone: dict[str, object] = RESNET,
    learning_rate: float = 1e-3,
    **values: object,
) -> Settings:
    own = {"method": objective, "epochs": epochs, "learning_rate": learning_rate, "batch_size": 6, "dim": 32}
    return make_settings(
        {
            "n_classes": 4,
            "method": "kmeans",
            "start": "pretrain",
            "data": {"image_px": 64},
            "views": {"frame_px": 64},
            "backbone": backbone,
            "clustering": {"max_points": 2000, "n_restarts": 1},
            "pretraining": own,
            **values,
        }
    )


def objective(method: str, **values: object) -> Objective:
    torch.manual_seed(0)
    return OBJECTIVES[method](tiny(method, **values))


@pytest.fixture
def batch(rng: np.random.Generator) -> SiameseBatch:
    images = [torch.from_numpy(rng.integers(0, 256, (3, 64, 96), np.uint8)) for _ in range(4)]
    return siamese_batch(images, [3, 1, 4, 0], seed=0, epoch=2, settings=tiny().views)


@pytest.fixture(params=OBJECTIVES)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


def same_weights(first: Path, second: Path) -> bool:
    one, other = load_file(first), load_file(second)
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_spread_by_hand() -> None:
    # four directions of a plane: each coordinate is 1, -1, 0, 0, with deviation sqrt(1/2); times sqrt(2) that is 1
    cross = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 3.0], [0.0, -1.0]])
    torch.testing.assert_close(spread(cross), torch.tensor(1.0))
    assert spread(torch.tensor([[1.0, 2.0], [2.0, 4.0]])).item() == pytest.approx(0, abs=1e-6)


def test_simsiam_against_a_slow_reference(batch: SiameseBatch) -> None:
    own = objective("simsiam").train()
    found = own(batch)["loss"]
    maps = own.embedding(torch.cat([batch.first_B3hw, batch.second_B3hw]))
    projected = own.projector(maps[-1].mean((2, 3)))
    predicted, targets = own.predictor(projected), projected.detach()
    expected = -sum(
        predicted[i] @ targets[(i + 4) % 8] / (predicted[i].norm() * targets[(i + 4) % 8].norm()) for i in range(8)
    ).div(8)  # 4 images, two views each
    torch.testing.assert_close(found, expected)
    weight = own.projector.layers[0].weight
    torch.testing.assert_close(*(torch.autograd.grad(loss, weight)[0] for loss in (found, expected)))


def test_vicregl_compares_places_where_they_lie(batch: SiameseBatch) -> None:
    own, seen = objective("vicregl").train(), {}
    own.criterion.register_forward_pre_hook(lambda _module, _args, given: seen.update(given), with_kwargs=True)
    loss = own(batch)["loss"]
    assert loss.shape == ()
    first, second = seen["global_view_grids"]
    assert first.shape == second.shape == (4, 2, 2, 2)  # 64 px at stride 32
    for image, (frame, crop) in enumerate(zip(batch.frames, batch.crops, strict=True)):
        top, left, side = frame.box[0] + crop.box[0], frame.box[1] + crop.box[1], crop.box[2]
        for y in range(2):
            for x in range(2):
                column = 1 - x if crop.flip_x else x
                at = ((top + (y + 0.5) * side / 2) / 16, (left + (column + 0.5) * side / 2) / 24)
                torch.testing.assert_close(first[image, y, x], torch.tensor(at))
                at = ((frame.box[0] + (y + 0.5) * 8) / 16, (frame.box[1] + (x + 0.5) * 8) / 24)
                torch.testing.assert_close(second[image, y, x], torch.tensor(at))


@pytest.mark.parametrize("backbone", [RESNET, VIT], ids=["resnet", "vit"])
def test_an_objective_reaches_the_whole_backbone(batch: SiameseBatch, method: str, backbone: dict[str, object]) -> None:
    own = objective(method, backbone={**backbone, "frozen": True}).train()  # frozen is for the classes alone
    own(batch)["loss"].backward()
    last_only = {"net.cls_token"} if method == "simsiam" else set()
    reached = {name for name, value in own.embedding.named_parameters() if value.grad is not None}
    assert {name for name, _ in own.embedding.named_parameters()} - reached <= last_only
    assert own.embedding.training


def test_the_loss_falls_and_nothing_collapses(scenes: Path, tmp_path: Path, method: str) -> None:
    learning_rate = {"simsiam": 1e-2, "vicregl": 3e-3}[method]
    verbs.pretrain(scenes, tmp_path / "w.safetensors", tiny(method, epochs=20, learning_rate=learning_rate))
    epochs = [line for line in RunFolder(tmp_path / "w.pretraining").metrics() if "step" not in line]
    losses = [line["loss"] for line in epochs]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1
    assert min(line["embedding_spread"] for line in epochs) > loop.LOW_HEALTH
    backbone = Backbone(tiny().backbone.model_copy(update={"weights": tmp_path / "w.safetensors"})).eval()
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert F.normalize(backbone(images)[-1].mean((2, 3)), dim=1).std(0).mean() > 1e-3


def test_resumed_is_unbroken(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    verbs.pretrain(scenes, tmp_path / "a.safetensors", tiny(method))
    interrupt_after(3, monkeypatch)  # of 4 steps
    with pytest.raises(InterruptedRunError, match="--resume goes on"):
        verbs.pretrain(scenes, tmp_path / "b.safetensors", tiny(method))
    monkeypatch.undo()
    assert not (tmp_path / "b.safetensors").exists()
    verbs.pretrain(scenes, tmp_path / "b.safetensors", tiny(method), resume=True)
    assert same_weights(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    spreads = [
        [
            line["embedding_spread"]
            for line in RunFolder(tmp_path / f"{name}.pretraining").metrics()
            if "step" not in line
        ]
        for name in "ab"
    ]
    assert spreads[0] == spreads[1]
    left = {path.name for path in (tmp_path / "b.pretraining").iterdir()}
    assert left - {".lock"} == {"settings.yaml", "meta.json", "metrics.jsonl"}


CONVNEXT = {"name": "test_convnext"}


@pytest.mark.parametrize("backbone", [RESNET, VIT, CONVNEXT], ids=["resnet", "vit", "convnext"])
def test_weights_say_what_they_are(scenes: Path, tmp_path: Path, backbone: dict[str, object]) -> None:
    weights = tmp_path / "w.safetensors"
    given = {**backbone, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    verbs.pretrain(scenes, weights, tiny(epochs=1, backbone=given))
    own = tiny().model_dump(include={"n_classes", "method", "data", "views", "clustering"})
    own["backbone"] = {"name": backbone["name"], "weights": weights}
    run = verbs.fit(scenes, tmp_path / "run", make_settings(own))
    found = run.settings().backbone
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert found.options == backbone.get("options", {})
    assert run.read_json("meta.json")["start"] == "self-supervised (vicregl) on 12 images"
    trained, prefix = load_file(run.weights), "embedding.backbone.net."  # k-means leaves the backbone as it starts
    for name, value in load_file(weights).items():
        assert torch.equal(trained[prefix + name], value), name


@pytest.mark.parametrize(
    ("trained", "own", "n_steps"),  # 4 steps of pre-training, then 3 of training
    [
        ("picie", {"dim": 16}, 3),
        ("context", {"n_partitions": 2, "embedding": {"dim": 16}, "guidance": {"grid": 8}}, 6),
    ],
    ids=["stopped in pre-training", "stopped in training"],
)
def test_a_run_starts_with_pre_training_and_does_it_once(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: str, own: dict[str, object], n_steps: int
) -> None:
    training = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    settings = tiny(**{"training": training, "method": trained, trained: own})
    unbroken = verbs.fit(scenes, tmp_path / "unbroken", settings)
    assert unbroken.read_json("meta.json")["start"] == "self-supervised (vicregl) on these images"
    assert {path.name for path in (unbroken.path / "pretraining").iterdir()} == {"metrics.jsonl", "weights.safetensors"}

    with monkeypatch.context() as patch:
        interrupt_after(n_steps, patch)
        with pytest.raises(InterruptedRunError):
            verbs.fit(scenes, tmp_path / "broken", settings)
    weights = tmp_path / "broken" / "pretraining" / "weights.safetensors"
    made = weights.stat().st_mtime_ns if trained == "context" else None
    resumed = verbs.fit(scenes, tmp_path / "broken", settings, resume=True)
    assert made in {None, weights.stat().st_mtime_ns}
    assert same_weights(weights, unbroken.path / "pretraining" / "weights.safetensors")
    assert same_weights(resumed.weights, unbroken.weights)

    moved = shutil.move(unbroken.path, tmp_path / "moved")  # a run can be moved, and predicts without its start
    shutil.rmtree(Path(moved) / "pretraining")
    verbs.predict(Path(moved), scenes, tmp_path / "masks")


@pytest.mark.parametrize("n_steps", [1, 4])  # in the middle of pre-training, and at its end
def test_a_run_that_was_pre_training_refuses_other_images(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_steps: int
) -> None:
    images = shutil.copytree(scenes / "images", tmp_path / "images")
    settings = tiny(method="context", training={"epochs": 1, "batch_size": 4})
    with monkeypatch.context() as patch:
        interrupt_after(n_steps, patch)
        with pytest.raises(InterruptedRunError):
            verbs.fit(images, tmp_path / "run", settings)
    (images / "0003.png").unlink()
    with pytest.raises(RunError, match=r"the images have changed since this run began \(12 then, 11 now"):
        verbs.fit(images, tmp_path / "run", settings, resume=True)


def test_pre_training_may_go_on_from_weights(scenes: Path, tmp_path: Path) -> None:
    first = verbs.pretrain(scenes, tmp_path / "first.safetensors", tiny("simsiam", epochs=1))
    second = tiny(epochs=1, backbone={"name": "test_resnet", "weights": first})
    verbs.pretrain(scenes, tmp_path / "second.safetensors", second)
    start = RunFolder(tmp_path / "second.pretraining").read_json("meta.json")["start"]
    assert start == "self-supervised (vicregl) on these images, from self-supervised (simsiam) on 12 images"
    assert not same_weights(first, tmp_path / "second.safetensors")


def test_weights_know_little_that_were_made_from_random_ones(scenes: Path, tmp_path: Path) -> None:
    def pretrained(name: str, **start: Path) -> Path:
        settings = tiny("simsiam", epochs=1, backbone={**RESNET, **start})
        return verbs.pretrain(scenes, tmp_path / name, settings)

    first = pretrained("first.safetensors")
    save_file(load_file(first), tmp_path / "public.safetensors")  # nobody says what these have seen
    made = {
        first: "student",
        pretrained("further.safetensors", weights=first): "student",
        pretrained("from-public.safetensors", weights=tmp_path / "public.safetensors"): "start",
    }
    for weights, teacher in made.items():
        settings = make_settings({"n_classes": 4, "backbone": {**RESNET, "weights": weights}})
        assert settings.context.guidance.teacher == teacher, weights
        assert settings.training.learning_rate == {"student": 1e-3, "start": 1e-4}[teacher], weights


def test_pre_training_reaches_as_far_as_the_run_that_goes_on_from_it(scenes: Path, tmp_path: Path) -> None:
    public = tmp_path / "public.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), public)
    for start, to_the_end in (({"weights": public}, True), ({}, False)):
        settings = tiny("simsiam", epochs=1, backbone={"name": "test_efficientnet", **start})
        made = verbs.pretrain(scenes, tmp_path / f"{to_the_end}.safetensors", settings)
        assert ("conv_head.weight" in load_file(made)) == to_the_end
        assert not to_the_end or (load_file(made)["conv_head.weight"] != load_file(public)["conv_head.weight"]).any()
        run = make_settings({"n_classes": 11, "backbone": {"name": "test_efficientnet", "weights": made}})
        assert Context(run).embedding.backbone.n_deep == N_DEEP + to_the_end


def test_a_run_may_be_told_to_reach_to_the_end_from_random_weights(scenes: Path, tmp_path: Path) -> None:
    own = {"context": {"embedding": {"to_the_end": True, "dim": 8}}, "backbone": {"name": "test_efficientnet"}}
    run = verbs.fit(scenes, tmp_path / "run", tiny("simsiam", epochs=1, **own, method="context"))
    assert "conv_head.weight" in load_file(tmp_path / "run" / "pretraining" / "weights.safetensors")
    assert run.settings().context.embedding.to_the_end


def test_without_lightly_one_error_says_what_to_install(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightly", None)
    for verb in (verbs.fit, verbs.pretrain):
        with pytest.raises(LibraryError, match=r"needs lightly, .* pip install 'contextseg\[pretrain\]'"):
            verb(scenes, tmp_path / "new.safetensors", tiny())
    assert list(tmp_path.iterdir()) == []


def test_the_file_must_be_new_and_of_its_kind(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "there.safetensors").touch()
    for name in ("there.safetensors", "weights.pth"):
        with pytest.raises(RunError, match="must be the name of a new file"):
            verbs.pretrain(scenes, tmp_path / name, tiny())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pretraining": {"epochs": 3}}, "section 'pretraining' is set but start is 'backbone'"),
        ({"start": "pretrain", "method": "lab"}, "'lab', which has no network to train"),
        ({"start": "pretrain", "pretraining": {"method": "dino"}}, r"pretraining\.method: got 'dino'"),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_settings({"n_classes": 4, **values})
