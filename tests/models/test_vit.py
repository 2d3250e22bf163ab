"""ViT backbones: maps from patch tokens, the class token, public names, original checkpoint layouts."""

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from contextseg.errors import WeightsError
from contextseg.models.backbone import Backbone
from contextseg.models.context import ContextEmbedding
from contextseg.models.embedding import BackboneFeatures, PixelEmbedding
from contextseg.settings import BackboneSettings, EmbeddingSettings
from contextseg.views.geometry import whole_coordinates

SMALL = {"depth": 5, "embed_dim": 24, "num_heads": 2}
PUBLIC = [
    "vit_small_patch8_224.dino",
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
]


def vit(patch: int = 16, name: str = "test_vit", **values: object) -> Backbone:
    options = {"patch_size": patch, "img_size": 10 * patch, **SMALL, **values.pop("options", {})}
    torch.manual_seed(0)
    return shaken(Backbone(BackboneSettings(name=name, options=options, **values))).eval()


def shaken(backbone: Backbone) -> Backbone:
    """Give every weight a say: layer scales and class tokens of a fresh network are nearly zero."""
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return backbone


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


# 64 x 96 in patches of 14 are 4.6 x 6.9, so 5 x 7 of them
@pytest.mark.parametrize(("patch", "grid"), [(8, (8, 12)), (16, (4, 6)), (14, (5, 7))])
@torch.no_grad()
def test_maps_lie_at_the_stride_of_the_patches(image: torch.Tensor, patch: int, grid: tuple[int, int]) -> None:
    backbone = vit(patch)
    assert backbone.strides == (patch,) * 4
    assert backbone.channels == (24,) * 4
    maps, class_token = backbone.with_class_token(image)
    assert [tuple(level.shape) for level in maps] == [(2, 24, *grid)] * 4
    assert class_token.shape == (2, 24)
    assert all(torch.equal(own, other) for own, other in zip(backbone(image), maps, strict=True))


@pytest.mark.parametrize(("name", "n_prefix"), [("test_vit", 1), ("vit_small_patch14_reg4_dinov2", 5)])
@torch.no_grad()
def test_maps_and_token_are_those_of_the_last_blocks(image: torch.Tensor, name: str, n_prefix: int) -> None:
    backbone = vit(name=name)
    maps, class_token = backbone.with_class_token(image)
    net, inputs = backbone.net, (image - backbone.mean) / backbone.std
    for level in reversed(maps):  # one block less at a time; `forward_features` ends with the norm
        tokens = net.forward_features(inputs)
        for y in range(4):
            for x in range(6):
                torch.testing.assert_close(level[:, :, y, x], tokens[:, n_prefix + 6 * y + x])
        if level is maps[-1]:
            torch.testing.assert_close(class_token, tokens[:, 0])
        net.blocks = net.blocks[:-1]


@torch.no_grad()
def test_an_image_that_patches_do_not_cover_is_resized(image: torch.Tensor) -> None:
    backbone = vit(14)
    resized = F.interpolate(image, (70, 98), mode="bilinear", align_corners=False, antialias=True)
    for own, other in zip(backbone(image), backbone(resized), strict=True):
        torch.testing.assert_close(own, other)
    assert backbone(image[..., :32, :32])[0].shape[-2:] == (2, 2)  # 32 / 14 = 2.3


@pytest.mark.parametrize(
    ("name", "options"), [("test_vit", {"class_token": False, "global_pool": "avg"}), ("test_vit2", {})]
)
@torch.no_grad()
def test_a_vit_may_have_no_class_token(image: torch.Tensor, name: str, options: dict[str, object]) -> None:
    backbone = vit(name=name, options=options)  # the second has a register token in its place
    maps, class_token = backbone.with_class_token(image)
    assert class_token is None
    assert maps[-1].shape == (2, 24, 4, 6)


@pytest.mark.parametrize("name", PUBLIC)
@torch.no_grad()
def test_public_networks_by_name(image: torch.Tensor, name: str) -> None:
    patch = int(name.partition("patch")[2].partition("_")[0])
    backbone = Backbone(BackboneSettings(name=name, options={"depth": 2, "embed_dim": 48, "num_heads": 2})).eval()
    maps, class_token = backbone.with_class_token(image)
    assert set(backbone.strides) == {patch}
    assert len(maps) == 2  # no more maps than blocks
    assert maps[0].shape[-2:] == (round(64 / patch), round(96 / patch))
    assert class_token is not None
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))


def test_every_weight_of_a_vit_takes_part(image: torch.Tensor) -> None:
    backbone = vit()
    maps, class_token = backbone.with_class_token(image)
    (sum(level.square().mean() for level in maps) + class_token.square().mean()).backward()
    assert [name for name, value in backbone.named_parameters() if value.grad is None] == []


@torch.no_grad()
def test_a_vit_does_not_commute_with_a_flip(image: torch.Tensor) -> None:
    """As docs/conventions.md says: it knows where a patch lies, and a flip moves it."""
    backbone = vit(8)
    whole, flipped = backbone(image)[-1], backbone(image.flip(-1))[-1].flip(-1)
    assert (whole - flipped).abs().mean() > 0.1 * whole.abs().mean()


def dinov2_with_registers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published layout: the class token has a position embedding of its own, the registers another name."""
    of_class = torch.full_like(state["cls_token"], 0.25)
    return {
        **{name: value for name, value in state.items() if name not in {"reg_token", "cls_token", "pos_embed"}},
        "cls_token": state["cls_token"] - of_class,
        "register_tokens": state["reg_token"],
        "pos_embed": torch.cat([of_class, state["pos_embed"]], dim=1),
        "mask_token": torch.zeros(1, 24),
    }


def dinov3(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published layout: storage tokens, other names for layer scale, the periods of the rotary embedding."""
    names = {"reg_token": "storage_tokens", ".gamma_1": ".ls1.gamma", ".gamma_2": ".ls2.gamma"}
    renamed = {}
    for name, value in state.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        renamed[name] = value
    return renamed | {"rope_embed.periods": torch.zeros(4), "mask_token": torch.zeros(1, 24)}


@pytest.mark.parametrize(
    ("name", "published", "wrap"),
    [
        ("test_vit", dict, lambda state: state),
        (
            "test_vit",
            dict,
            lambda state: {"epoch": 1, "teacher": {f"backbone.{k}": v for k, v in state.items()}},
        ),
        ("vit_small_patch14_reg4_dinov2", dinov2_with_registers, lambda state: state),
        ("vit_small_patch16_dinov3", dinov3, lambda state: state),
    ],
    ids=["DINO", "DINO with its heads", "DINOv2 with registers", "DINOv3"],
)
def test_original_checkpoints_load(tmp_path: Path, name: str, published: object, wrap: object) -> None:
    trained = vit(name=name)
    state = {**published(trained.net.state_dict()), "head.mlp.0.weight": torch.zeros(2, 2)}
    torch.save(wrap(state), tmp_path / "dino.pth")
    options = {"patch_size": 16, "img_size": 160, **SMALL}
    found = Backbone(BackboneSettings(name=name, options=options, weights=tmp_path / "dino.pth"))
    for key, value in found.net.state_dict().items():
        torch.testing.assert_close(value, trained.net.state_dict()[key], msg=key)


def test_position_embeddings_of_another_grid_are_resampled(tmp_path: Path) -> None:
    trained = vit(8)  # a grid of 10 x 10
    save_file(trained.net.state_dict(), tmp_path / "dino.safetensors")
    settings = BackboneSettings(
        name="test_vit", options={"patch_size": 8, "img_size": 56, **SMALL}, weights=tmp_path / "dino.safetensors"
    )
    expected = resample_abs_pos_embed(trained.net.pos_embed, [7, 7], [10, 10])
    torch.testing.assert_close(Backbone(settings).net.pos_embed, expected)


def test_weights_of_another_vit(tmp_path: Path) -> None:
    save_file(vit(8).net.state_dict(), tmp_path / "dino.safetensors")
    options = {**SMALL, "patch_size": 8, "depth": 6}
    with pytest.raises(
        WeightsError, match=r"lacks 12 of the network's \d+ weights, such as 'blocks\.5\.norm1\.weight'"
    ):
        Backbone(BackboneSettings(name="test_vit", options=options, weights=tmp_path / "dino.safetensors"))


@pytest.mark.parametrize("patch", [8, 14, 16])
@torch.no_grad()
def test_embeddings_of_a_vit_lie_on_the_cells(image: torch.Tensor, patch: int) -> None:
    backbone, coordinates = vit(patch), whole_coordinates(16, 24).expand(2, -1, -1, -1)
    *_, second, last = (F.normalize(level, dim=1) for level in backbone(image))
    widened = [F.interpolate(level, (16, 24), mode="bilinear", align_corners=False) for level in (second, last)]
    joined = BackboneFeatures(backbone)(image, coordinates)
    torch.testing.assert_close(joined, F.normalize(torch.cat(widened, dim=1), dim=1))
    context = ContextEmbedding(backbone, EmbeddingSettings(dim=10))
    for embedding, n_channels in ((PixelEmbedding(backbone, 10), 10), (context, 10 + 64)):  # 64 are its looks
        found = embedding.eval()(image, coordinates)
        assert found.shape == (2, n_channels, 16, 24)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(2, 16, 24))


@torch.no_grad()
def test_the_global_context_of_a_vit_is_its_class_token(image: torch.Tensor) -> None:
    backbone = vit()
    embedding = ContextEmbedding(backbone, EmbeddingSettings(dim=10)).eval()
    seen = []
    embedding.film.register_forward_hook(lambda _layer, inputs, _output: seen.append(inputs[0]))
    embedding(image, whole_coordinates(16, 24).expand(2, -1, -1, -1))
    torch.testing.assert_close(seen[0], F.normalize(backbone.with_class_token(image)[1], dim=1))


@torch.no_grad()
def test_a_swin_takes_images_of_any_size(image: torch.Tensor) -> None:
    """Not a ViT of one stride, but timm has to be told all the same."""
    options = {"depths": [1, 1, 1, 1], "embed_dim": 8, "num_heads": [1, 1, 2, 2], "window_size": 4}
    backbone = Backbone(BackboneSettings(name="swin_tiny_patch4_window7_224", options=options)).eval()
    assert backbone.strides == (4, 8, 16, 32)
    assert [level.shape[-2:] for level in backbone(image)] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert backbone.with_class_token(image)[1] is None


def test_timm_has_these_names() -> None:
    assert all(timm.is_model(name) for name in PUBLIC)
