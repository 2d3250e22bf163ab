"""The sections that hold for all methods: images, views, backbone, clustering, training, pre-training."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from safetensors import SafetensorError, safe_open

from contextseg.conventions import MAX_PIXELS, SIZE_MULTIPLE_PX

Fraction = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
FROM_RANDOM = "contextseg.from_random"
"""Key in the metadata of a file of weights that were made from random ones by self-supervision."""


class Section(BaseModel):
    """A part of the settings tree: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def _check_multiple(name: str, size_px: int) -> None:
    if size_px % SIZE_MULTIPLE_PX:
        nearest = max(1, round(size_px / SIZE_MULTIPLE_PX)) * SIZE_MULTIPLE_PX
        raise ValueError(f"{name} is {size_px}; it must be a multiple of {SIZE_MULTIPLE_PX}, such as {nearest}")


class DataSettings(Section):
    """How images become arrays."""

    image_px: int = Field(224, ge=32, description="shorter side of every image before the network, in pixels")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="files with more pixels than this are left out")
    cache_bytes: int | None = Field(
        None,
        ge=0,
        description="decoded images on disk while the run trains, at most; those beyond it are decoded each time they "
        "are used; by default all are kept",
    )

    @model_validator(mode="after")
    def _whole_cells(self) -> Self:
        _check_multiple("image_px", self.image_px)
        return self


class ViewSettings(Section):
    """The two augmented views of an image; the defaults are PiCIE's."""

    frame_px: int = Field(128, ge=32, description="side of the square seen by the network in training, in pixels")
    frame: Literal["random", "centre"] = Field("random", description="where in the image the square lies")
    min_scale: float = Field(
        0.5, gt=0, le=1, description="smallest side of the geometric crop, as a fraction of the square"
    )
    flip_p: Fraction = Field(0.5, description="probability of a horizontal flip")
    jitter_p: Fraction = Field(0.8, description="probability of each of brightness, contrast, saturation and hue")
    brightness: Range = Field((0.7, 1.3), description="range of the brightness factor")
    contrast: Range = Field((0.7, 1.3), description="range of the contrast factor")
    saturation: Range = Field((0.7, 1.3), description="range of the saturation factor")
    hue: Range = Field((-0.1, 0.1), description="range of the hue shift, in turns of the colour circle")
    grey_p: Fraction = Field(0.2, description="probability of a grey image")
    blur_p: Fraction = Field(0.5, description="probability of a Gaussian blur")
    blur_sigma_px: Range = Field((0.1, 1.8), description="range of the blur's standard deviation, in pixels")

    @model_validator(mode="after")
    def _whole_cells(self) -> Self:
        _check_multiple("frame_px", self.frame_px)
        for name in ("brightness", "contrast", "saturation", "hue", "blur_sigma_px"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is ({low}, {high}); the first must not be above the second")
        return self


_NOT_OPTIONS = {
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
    *("num_classes", "features_only"),
}


class BackboneSettings(Section):
    """The network that turns an image into feature maps."""

    name: str = Field("resnet18", description="a timm model: a ConvNet with maps at strides 4, 8, 16 and 32, or a ViT")
    weights: Path | None = Field(
        None,
        description="local checkpoint to start from: .safetensors, or a torch file in timm's or torchvision's layout",
    )
    pretrained: bool = Field(False, description="start from timm's public weights of that name (needs a network)")
    start: str | None = Field(
        None, description="what the weights were trained on, in words, for the tables: 'ImageNet, supervised'"
    )
    options: dict[str, JsonValue] = Field(default_factory=dict, description="further arguments of timm.create_model")
    frozen: bool = Field(False, description="keep its weights as they start; only what lies on top is learnt")
    batch_norm: Literal["batch", "frozen"] = Field(
        "batch",
        description="its batch-norm statistics in training: batch: of the whole batch, over all processes; frozen: as "
        "the weights have them",
    )
    mean: tuple[float, float, float] | None = Field(
        None, description="RGB mean that is subtracted, in 0-1 (default: timm's for that name)"
    )
    std: tuple[float, float, float] | None = Field(
        None, description="RGB standard deviation that divides (default: timm's for that name)"
    )

    @model_validator(mode="after")
    def _options_change_the_network_alone(self) -> Self:
        """What network it is, and what it starts from, is said above: no options load weights past that."""
        if refused := sorted(_NOT_OPTIONS & self.options.keys()):
            raise ValueError(
                f"options may not set {refused[0]}; backbone.weights or backbone.pretrained name the start"
            )
        return self

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.weights is not None and self.pretrained:
            raise ValueError("weights and pretrained are two different starts; set one of them")
        return self

    def knows_little(self) -> bool:
        """Return whether the network starts from random weights, or from what `contextseg pretrain` made of such."""
        if self.weights is None:
            return not self.pretrained
        # a file of another format says nothing; one that cannot be read is told where it is loaded
        with suppress(OSError, SafetensorError):
            if self.weights.is_file():
                with safe_open(self.weights, framework="numpy") as file:
                    return FROM_RANDOM in (file.metadata() or {})
        return False

    def describe_start(self) -> str:
        """Name the start of the network, as every table must show it."""
        if self.start is not None:
            return self.start
        if self.pretrained:
            return f"timm weights '{self.name}'"
        return "random" if self.weights is None else f"weights {self.weights.name}"


class ClusteringSettings(Section):
    """k-means over pixel embeddings."""

    max_points: int = Field(
        100_000,
        ge=1,
        description="embeddings held in memory at once; later ones update the centres batch by batch",
    )
    n_restarts: int = Field(3, ge=1, description="k-means++ starts; the one with the least inertia is kept")
    max_iter: int = Field(50, ge=1, description="Lloyd iterations of one start, at most")


class TrainingSettings(Section):
    """The training loop."""

    epochs: int = Field(5, ge=1, description="passes over the images")
    batch_size: int = Field(16, ge=2, description="images per step, of all processes together")
    learning_rate: float = Field(
        1e-4,
        gt=0,
        description="learning rate; where none is given, context takes 1e-3 for a network that has seen these "
        "images at most, densesiam 3e-3 and stego 5e-4",
    )
    decay: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of training, at its end, in which the learning rate falls evenly to 0; where none is given, "
        "context takes 0.5",
    )
    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one, else cpu")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto", description="auto: half precision where the hardware computes in it, else 32-true"
    )
    checkpoint_every_s: float = Field(300.0, gt=0, description="seconds between checkpoints inside an epoch")


class PretrainingSettings(Section):
    """Self-supervised training of the backbone on the run's own images, before its classes are learnt."""

    method: Literal["vicregl", "simsiam"] = Field(
        "vicregl", description="vicregl: whole views and their places are compared; simsiam: whole views alone"
    )
    dim: int = Field(512, ge=2, description="dimensions in which the views are compared, above the backbone")
    epochs: int = Field(50, ge=1, description="passes over the images")
    batch_size: int = Field(32, ge=2, description="images per step")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate")

    def schedule(self) -> dict[str, float]:
        """Return what stands in place of the same names in `TrainingSettings` while the backbone is pre-trained."""
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "decay": 0.0,
        }
