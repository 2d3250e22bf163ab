import pickle
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from contextseg.errors import SettingsError, WeightsError
from contextseg.models.backbone import Backbone, load_weights
from contextseg.models.embedding import PixelEmbedding
from contextseg.settings import BackboneSettings

NETWORKS = ["test_resnet", "test_convnext", "test_efficientnet"]


def image(height=64, width=96, seed=0):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def small(**values):
    return BackboneSettings(name="test_resnet", **values)


def shaken(net, seed=0):
    """Weights and batch-norm statistics that differ from those of any fresh network."""
    generator = torch.Generator().manual_seed(seed)
    state = net.state_dict()
    return {
        name: value + 0.1 * torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in state.items()
    }


@pytest.fixture(scope="module")
def trained():
    """The weights of a small network in timm's layout, classifier included."""
    return shaken(timm.create_model("test_resnet", num_classes=7))


def maps_of(state):
    """The maps of timm's own feature extractor with these weights."""
    net = timm.create_model("test_resnet", features_only=True, out_indices=(1, 2, 3, 4))
    net.load_state_dict({name: value for name, value in state.items() if name in net.state_dict()})
    normalise = net.pretrained_cfg if hasattr(net, "pretrained_cfg") else {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    mean, std = (torch.tensor(normalise[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return net.eval()((image() - mean) / std)


def assert_same_maps(backbone, expected):
    with torch.no_grad():
        found = backbone.eval()(image())
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_strides_and_channels_are_those_of_timm(name):
    backbone = Backbone(BackboneSettings(name=name)).eval()
    theirs = timm.create_model(name, features_only=True).feature_info
    expected = dict(zip(theirs.reduction(), theirs.channels(), strict=True))
    assert backbone.strides == (4, 8, 16, 32)
    assert backbone.channels == tuple(expected[stride] for stride in (4, 8, 16, 32))
    with torch.no_grad():
        maps = backbone(image())
    assert [tuple(level.shape) for level in maps] == [
        (2, channels, 64 // stride, 96 // stride)
        for stride, channels in zip(backbone.strides, backbone.channels, strict=True)
    ]
    assert all(level.std() > 0 for level in maps)


@pytest.mark.parametrize("name", ["mobilenetv2_035", "efficientnet_b0"])  # kernels of 3, and of 3 and 5
def test_same_padding_is_timms(name):
    """The same maps bit by bit, and not one random number more."""
    torch.manual_seed(0)
    backbone = Backbone(BackboneSettings(name=name, options={"pad_type": "same"})).eval()
    drawn = torch.rand(1)
    torch.manual_seed(0)
    net = timm.create_model(name, pad_type="same", num_classes=0).eval()
    assert torch.equal(torch.rand(1), drawn)
    for height, width in ((32, 96), (64, 64), (160, 224)):
        pixels = torch.rand(1, 3, height, width)
        with torch.no_grad():
            theirs = net.forward_intermediates((pixels - backbone.mean) / backbone.std, intermediates_only=True)
            for own, other in zip(backbone(pixels), theirs[-4:], strict=True):
                assert torch.equal(own, other)


@pytest.mark.parametrize("name", ["test_efficientnet", "mobilenetv2_035"])
def test_what_the_classifier_sees_is_one_more_map(name, tmp_path):
    net = timm.create_model(name).eval()  # with its classifier
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    settings = BackboneSettings(name=name, weights=tmp_path / "net.safetensors")
    backbone = Backbone(settings, to_the_end=True).eval()
    with torch.no_grad():
        *maps, seen = backbone(image())
        scores = net.classifier(seen.mean((2, 3)))
        torch.testing.assert_close(scores, net((image() - backbone.mean) / backbone.std))
    assert_same_maps(Backbone(settings), maps)
    assert backbone.strides == (4, 8, 16, 32, 32)
    assert backbone.channels == (*Backbone(settings).channels, seen.shape[1])
    assert backbone.n_deep == 3


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "mobilenetv3_small_050"])
def test_where_the_classifier_sees_the_last_map_there_is_no_other(name):
    assert (
        Backbone(BackboneSettings(name=name), to_the_end=True).channels
        == Backbone(BackboneSettings(name=name)).channels
    )


def test_weights_that_end_before_the_classifiers_last_layer(tmp_path):
    own = Backbone(BackboneSettings(name="test_efficientnet"))
    save_file(own.net.state_dict(), tmp_path / "net.safetensors")
    settings = BackboneSettings(name="test_efficientnet", weights=tmp_path / "net.safetensors")
    Backbone(settings)
    with pytest.raises(WeightsError, match=r"lacks .*'conv_head.*context\.embedding\.to_the_end=false"):
        Backbone(settings, to_the_end=True)


def test_the_maps_are_those_of_timms_own_feature_extractor(tmp_path, trained):
    save_file(trained, tmp_path / "net.safetensors")
    assert_same_maps(Backbone(small(weights=tmp_path / "net.safetensors")), maps_of(trained))


@pytest.mark.parametrize("wrap", [(), ("state_dict",), ("model",), ("teacher",), ("model", "state_dict")])
@pytest.mark.parametrize("prefix", ["", "module.", "module.encoder_q.", "student.backbone."])
def test_torch_files_with_prefixes_and_containers(tmp_path, trained, prefix, wrap):
    content = {prefix + name: value for name, value in trained.items()}
    content |= {"queue": torch.zeros(3, 5), "module.projector.0.weight": torch.zeros(2, 2)}
    for key in wrap:
        content = {"epoch": 200, key: content}
    torch.save(content, tmp_path / "net.pth")
    net = timm.create_model("test_resnet", num_classes=0)
    load_weights(net, tmp_path / "net.pth")
    for name, value in net.state_dict().items():
        assert torch.equal(value, trained[name]), name


def test_of_mocos_two_encoders_the_trained_one_is_read(tmp_path, trained):
    other = shaken(timm.create_model("test_resnet", num_classes=7), seed=5)
    content = {f"module.encoder_q.{name}": value for name, value in trained.items()}
    content |= {f"module.encoder_k.{name}": value for name, value in other.items()}
    torch.save({"arch": "resnet", "state_dict": content}, tmp_path / "moco.pth.tar")
    net = timm.create_model("test_resnet", num_classes=0)
    load_weights(net, tmp_path / "moco.pth.tar")
    assert torch.equal(net.state_dict()["conv1.0.weight"], trained["conv1.0.weight"])


def test_a_torchvision_file_gives_torchvisions_maps(tmp_path):
    theirs = torchvision.models.resnet18(weights=None)
    theirs.load_state_dict(shaken(theirs))
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    backbone = Backbone(BackboneSettings(name="resnet18", weights=tmp_path / "resnet18.pth")).eval()
    assert backbone.channels == (64, 128, 256, 512)
    theirs.eval()
    with torch.no_grad():
        x = (image() - backbone.mean) / backbone.std
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        expected = []
        for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            x = layer(x)
            expected.append(x)
        found = backbone(image())
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)


def test_counts_of_batches_may_be_missing(tmp_path, trained):
    """Checkpoints older than PyTorch 0.4.1 have no num_batches_tracked."""
    old = {name: value for name, value in trained.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(trained)
    torch.save(old, tmp_path / "old.pth")
    assert_same_maps(Backbone(small(weights=tmp_path / "old.pth")), maps_of(trained))


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_file_that_would_run_code_is_refused(tmp_path, trained, writer):
    harmed, path = tmp_path / "harmed", tmp_path / "net.pth"
    content = {**trained, "extra": Harmful(harmed)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match=r"net\.pth: is not a torch file of plain tensors"):
        Backbone(small(weights=path))
    assert not harmed.exists()
    # Were it read as any pickle, it would act.
    torch.load(path, weights_only=False) if writer == "torch" else pickle.loads(path.read_bytes())
    assert harmed.exists()


def test_weights_of_another_network(tmp_path):
    other = timm.create_model("test_convnext", num_classes=0).state_dict()
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"lacks \d+ of the network's \d+ weights, such as 'conv1\.0\.weight'"):
        Backbone(small(weights=tmp_path / "other.safetensors"))


def test_one_weight_is_missing(tmp_path, trained):
    less = {name: value for name, value in trained.items() if name != "layer3.0.conv2.weight"}
    save_file(less, tmp_path / "less.safetensors")
    with pytest.raises(WeightsError, match=r"lacks 1 of .* such as 'layer3\.0\.conv2\.weight'"):
        Backbone(small(weights=tmp_path / "less.safetensors"))


def test_a_weight_of_another_shape(tmp_path, trained):
    save_file(trained | {"layer3.0.conv2.weight": torch.zeros(5, 4, 3, 3)}, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=r"'layer3\.0\.conv2\.weight' is \(5, 4, 3, 3\), the network's is \("):
        Backbone(small(weights=tmp_path / "net.safetensors"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("kept", [0, 7, 4000])
def test_a_truncated_file(tmp_path, trained, suffix, kept):
    path = tmp_path / f"net{suffix}"
    save_file(trained, path) if suffix == ".safetensors" else torch.save(trained, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=rf"net\{suffix}: (cannot be read as weights|is not a torch file)"):
        Backbone(small(weights=path))


@pytest.mark.parametrize("name", ["nowhere.pth", "nowhere.safetensors", "."])
def test_a_missing_file(tmp_path, name):
    with pytest.raises(WeightsError, match=r"no such file; expected a \.safetensors file or a torch checkpoint"):
        Backbone(small(weights=tmp_path / name))


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2]])
def test_a_torch_file_without_names(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=f"holds {type(content).__name__}, expected a mapping from names to tensors"):
        Backbone(small(weights=tmp_path / "net.pth"))


def test_an_empty_state_dict(tmp_path):
    torch.save({}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="it holds 0"):
        Backbone(small(weights=tmp_path / "net.pth"))


def test_the_file_is_not_read_where_a_trained_run_is_loaded(tmp_path):
    settings = small(weights=tmp_path / "gone.pth")
    assert Backbone(settings, load_start=False).channels == Backbone(small()).channels
    # Nor is a network asked for public weights.
    Backbone(small(pretrained=True), load_start=False)


@pytest.mark.parametrize(
    ("name", "near"), [("resnet_18", "resnet"), ("test_resnet99", "test_"), ("no-such", "resnet18, mobilenetv2_100")]
)
def test_an_unknown_name(name, near):
    with pytest.raises(SettingsError, match=rf"backbone\.name={name}: timm has no such network; near names: .*{near}"):
        Backbone(BackboneSettings(name=name))


def test_a_network_without_maps_that_fit():
    expected = r"xcit_nano_12_p16_224: has feature maps at strides \[16\]; needs \[4, 8, 16, 32\], or a ViT"
    with pytest.raises(SettingsError, match=expected):
        Backbone(BackboneSettings(name="xcit_nano_12_p16_224"))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_network_keeps_its_weights_and_its_statistics(name, frozen):
    embedding = PixelEmbedding(Backbone(BackboneSettings(name=name, frozen=frozen)), 8).train()
    before = {key: value.clone() for key, value in embedding.state_dict().items()}
    optimizer = torch.optim.Adam(embedding.parameters(), lr=0.1)
    for seed in range(2):
        embedding(image(seed=seed), torch.zeros(2, 2, 16, 24))[:, 0].mean().backward()
        optimizer.step()
    same = {key: torch.equal(value, before[key]) for key, value in embedding.state_dict().items()}
    assert {key.split(".")[0] for key, kept in same.items() if not kept} == (
        {"decoder"} if frozen else {"backbone", "decoder"}
    )
    if not frozen and name == "test_resnet":
        assert not any(kept for key, kept in same.items() if "running_" in key)


def test_an_unknown_option():
    with pytest.raises(SettingsError, match=r"backbone\.options=.*no_such_option"):
        Backbone(small(options={"no_such_option": 3}))


def test_options_reach_the_network():
    widths = Backbone(small(options={"channels": [8, 16, 24, 32]})).channels
    assert widths != Backbone(small()).channels


def test_mean_and_std_are_applied():
    mean, std = (0.1, 0.4, 0.7), (0.2, 0.5, 0.9)
    plain = Backbone(small(mean=(0, 0, 0), std=(1, 1, 1))).eval()
    given = Backbone(small(mean=mean, std=std)).eval()
    given.load_state_dict(plain.state_dict())
    by_hand = torch.stack([(image()[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    with torch.no_grad():
        for own, other in zip(given(image()), plain(by_hand), strict=True):
            torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-4)


def test_mean_and_std_are_timms_unless_given():
    config = timm.get_pretrained_cfg("resnet18").to_dict()
    backbone = Backbone(BackboneSettings(name="resnet18"))
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor(config["mean"]))
    torch.testing.assert_close(backbone.std.flatten(), torch.tensor(config["std"]))
    assert not {"mean", "std"} & set(backbone.state_dict())


def test_every_weight_of_the_network_takes_part():
    backbone = Backbone(small())
    sum(level.square().mean() for level in backbone(image())).backward()
    assert [name for name, value in backbone.named_parameters() if value.grad is None] == []
