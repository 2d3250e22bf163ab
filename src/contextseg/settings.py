"""The settings of a run: one tree, checked when it is built, the same names in Python, in YAML and after `--set`.

Every default of a setting stands here and nowhere else. A method's own section (``picie``, ``kmeans``, ``lab``, ..) may
be set only when that method is chosen, so that no setting is silently without effect.
"""

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from contextseg.conventions import FEW_CLASSES, MAX_PIXELS, SIZE_MULTIPLE_PX, STRIDE_PX
from contextseg.errors import SettingsError

Fraction = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]


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


class PicieSettings(Section):
    """PiCIE as its paper describes it, but for the temperature."""

    dim: int = Field(128, ge=2, description="dimensions of a pixel embedding")
    temperature: float = Field(0.1, gt=0, description="divides the cosine scores in the loss; 1 is PiCIE as described")
    class_weights: Literal["none", "counts", "inverse"] = Field(
        "none",
        description="weight of a cluster in the loss: none, its share of the pixels (PiCIE as released), or inverse",
    )
    overclusters: int | None = Field(
        None, ge=2, description="clusters of a second head that is trained besides (PiCIE + H has 100); none by default"
    )


class MdcSettings(Section):
    """MDC, the pixel-level DeepCluster of the PiCIE paper."""

    dim: int = Field(128, ge=2, description="dimensions of a pixel embedding")


class IicSettings(Section):
    """Invariant Information Clustering."""

    dim: int = Field(128, ge=2, description="dimensions of a pixel feature")
    displacement: int = Field(
        2, ge=0, description="farthest neighbour that a cell is compared with, in cells of 4 pixels along each axis"
    )
    overclusters_per_class: int = Field(3, ge=1, description="clusters of the auxiliary head for each class")


class DenseSiamSettings(Section):
    """Dense Siamese Network; SGD."""

    dim: int = Field(128, ge=2, description="dimensions of a pixel feature and of the hidden layers")
    auxiliary_clusters: int = Field(128, ge=2, description="clusters of the auxiliary head")
    segmentation_weight: float = Field(1.0, ge=0, description="weight of the cross-entropy with its own hard labels")
    region_weight: float = Field(0.1, ge=0, description="weight of the similarity of regions")
    region_temperature: float = Field(0.1, gt=0, description="divides the cosines of regions")
    region_from_epoch: int = Field(
        4, ge=0, description="epoch, from 0, from which regions count; where none is given, the last fifth of training"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay of SGD")


class StegoSettings(Section):
    """STEGO, on a frozen backbone. The weights and shifts are those for COCO-Stuff and a ViT-S/8."""

    dim: int = Field(70, ge=2, description="dimensions of a code")
    strides: tuple[Literal[4, 8, 16, 32], ...] = Field(
        (16, 32), min_length=1, description="strides of the frozen feature maps that are joined"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="share of the feature channels that the head does not see")
    points: int = Field(11, ge=1, description="points per side that are drawn from each image in a step, squared")
    neighbours: int = Field(7, ge=1, description="nearest images, one of which is shown beside an image")
    negatives: int = Field(5, ge=1, description="random other images that each image is compared with")
    self_weight: float = Field(0.67, ge=0, description="weight of an image's correspondence with itself")
    neighbour_weight: float = Field(0.25, ge=0, description="weight of the correspondence with a nearest image")
    random_weight: float = Field(0.63, ge=0, description="weight of the correspondence with a random image")
    self_shift: float = Field(0.08, description="feature cosine at which a point of the same image attracts")
    neighbour_shift: float = Field(0.02, description="feature cosine at which a point of a nearest image attracts")
    random_shift: float = Field(0.66, description="feature cosine at which a point of a random image attracts")
    pointwise: bool = Field(True, description="feature cosines of each point are centred over the other image")
    zero_clamp: bool = Field(True, description="codes that are unlike already are not pushed further apart")
    probe_learning_rate: float = Field(5e-3, gt=0, description="Adam's learning rate for the cluster probe")


class EmbeddingSettings(Section):
    """The Context-Aware Embedding; each part is a switch."""

    dim: int = Field(128, ge=2, description="dimensions of the features of a pixel, without its looks")
    projection: bool = Field(
        True,
        description="the decoder starts as the leading axes of the deep maps; off: from random numbers, as PiCIE's",
    )
    to_the_end: bool | None = Field(
        None,
        description="what the classifier of the network sees joins the two deepest maps, where a further layer makes "
        "it of the last, as in MobileNetV2 and EfficientNet; by default where the start knows something and more than "
        f"{FEW_CLASSES} classes are asked for",
    )
    global_context: bool = Field(
        True, description="the mean of the deepest map, or a ViT's class token, scales and shifts the features"
    )
    geometry: bool = Field(True, description="where the cell lies in the image")
    geometry_dropout: float = Field(
        0.2, ge=0, le=1, description="share of the images that are not told it in a step, so that it is not leant on"
    )
    appearance: bool = Field(True, description="Lab colour and gradient of the cell, as a Gaussian kernel")
    own_centers: bool = Field(
        True, description="in each image, centres lean towards what their clusters are in it; in prediction"
    )
    bilateral: bool = Field(False, description="neighbours that are close in space, appearance and feature")
    shuffled: bool = Field(False, description="control: coordinates exchanged at random between the cells")


class GuidanceSettings(Section):
    """Pyramid Semantic Guidance; `strength` 0 takes it out."""

    scales: tuple[float, ...] = Field(
        (1.0, 2.0), min_length=1, description="size of the image on each level of the pyramid, as a factor"
    )
    grid: int = Field(28, ge=1, description="places per side of the image that have a holistic label")
    strength: float = Field(
        1.0, ge=0, description="what a pixel's holistic label, if it is certain, adds to the score of its cluster"
    )
    teacher: Literal["auto", "start", "student"] = Field(
        "auto",
        description="start: places are grouped once, by the network as it starts; student: for each epoch, by the "
        "network as it is; auto: student for a network that has seen these images at most, else start",
    )
    shuffled: bool = Field(False, description="control: holistic labels exchanged at random between places")


class ContextSettings(Section):
    """Context-aware clustering: PSG and CAE, as reconstructed."""

    temperature: float = Field(0.1, gt=0, description="divides the cosine scores in the loss")
    clusters_per_class: int | None = Field(
        None,
        ge=1,
        description="clusters for each class that places are grouped into, before near ones are merged; by default 4, "
        "and 1 where the teacher is the student, whose distances mean little at first",
    )
    n_partitions: int = Field(32, ge=1, description="groupings of the places that the classes are made from")
    center_momentum: float = Field(
        0.95, ge=0, lt=1, description="how much of the centres a step keeps; they are moved with each batch"
    )
    balance: float = Field(
        2.0, ge=0, description="how firmly clusters are held at nearly the shares of the pixels that they start with"
    )
    embedding: EmbeddingSettings = EmbeddingSettings()
    guidance: GuidanceSettings = GuidanceSettings()


class KmeansSettings(Section):
    """k-means on the features of the backbone as it starts."""

    strides: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, min_length=1, description="strides of the feature maps that are joined; the two deepest maps by default"
    )


class LabSettings(Section):
    """k-means on colour and position: the floor of every table."""

    position_weight: float = Field(
        0.5, ge=0, description="weight of the position (0-1 over the image) against Lab / 100"
    )


METHOD_SECTIONS = {
    "context": ContextSettings,
    "picie": PicieSettings,
    "mdc": MdcSettings,
    "iic": IicSettings,
    "densesiam": DenseSiamSettings,
    "stego": StegoSettings,
    "kmeans": KmeansSettings,
    "lab": LabSettings,
}
FROM_RANDOM = "contextseg.from_random"
"""Key in the metadata of a file of weights that were made from random ones by self-supervision."""
MOST_CLASSES = 30
"""The largest number that ``n_classes: auto`` tries."""
# DenseSiam: 0.05 for a batch of 256, and in proportion for the default one
_TRAINING = {"context": {"decay": 0.5}, "densesiam": {"learning_rate": 3e-3}, "stego": {"learning_rate": 5e-4}}


class Settings(Section):
    """All settings of a run."""

    n_classes: int = Field(..., ge=2, le=4096, description="number of classes to find (K)")
    choose_n_classes: bool = Field(
        False, description="let the images decide on a number up to n_classes; n_classes: auto is short for that"
    )
    method: Literal["context", "picie", "mdc", "iic", "densesiam", "stego", "kmeans", "lab"] = Field(
        "context", description="how the classes are learnt"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="every random draw of the run follows from it")
    start: Literal["backbone", "pretrain"] = Field(
        "backbone",
        description="backbone: from what its section says: random weights, a file or public ones; pretrain: these are "
        "first trained further by self-supervision on the run's own images",
    )
    data: DataSettings = DataSettings()
    views: ViewSettings = ViewSettings()
    backbone: BackboneSettings = BackboneSettings()
    pretraining: PretrainingSettings = PretrainingSettings()
    clustering: ClusteringSettings = ClusteringSettings()
    training: TrainingSettings = TrainingSettings()
    context: ContextSettings = ContextSettings()
    picie: PicieSettings = PicieSettings()
    mdc: MdcSettings = MdcSettings()
    iic: IicSettings = IicSettings()
    densesiam: DenseSiamSettings = DenseSiamSettings()
    stego: StegoSettings = StegoSettings()
    kmeans: KmeansSettings = KmeansSettings()
    lab: LabSettings = LabSettings()

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("n_classes") == "auto":
            return {**values, "n_classes": MOST_CLASSES, "choose_n_classes": True}
        return values

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.choose_n_classes and self.method != "context":
            raise ValueError(
                f"the method is '{self.method}', and 'context' alone chooses its number of classes; "
                "give a number, such as n_classes=8"
            )
        if self.views.frame_px > self.data.image_px:
            raise ValueError(
                f"views.frame_px is {self.views.frame_px} and data.image_px is {self.data.image_px}; "
                "the square must fit into the image, so raise image_px or lower frame_px"
            )
        n_clusters = max(self.n_classes, self.picie.overclusters or 0)
        if self.clustering.max_points < n_clusters:
            raise ValueError(
                f"clustering.max_points is {self.clustering.max_points} and the largest head has {n_clusters} "
                "clusters; there must be as many points as clusters, so raise max_points"
            )
        if self.iic.displacement >= self.views.frame_px // STRIDE_PX:
            raise ValueError(
                f"iic.displacement is {self.iic.displacement} cells and views.frame_px is {self.views.frame_px}, "
                f"which is {self.views.frame_px // STRIDE_PX} cells; lower the displacement"
            )
        for section in METHOD_SECTIONS.keys() - {self.method}:
            if section in self.model_fields_set:
                raise ValueError(
                    f"section '{section}' is set but the method is '{self.method}', which does not read it"
                )
        if self.start != "pretrain" and self.pretraining != PretrainingSettings():
            raise ValueError(
                f"section 'pretraining' is set but start is '{self.start}', which does not read it; give start=pretrain"
            )
        if self.method == "lab" and self.start == "pretrain":
            raise ValueError("start is 'pretrain' but the method is 'lab', which has no network to train")
        return self

    @model_validator(mode="after")
    def _fill_in_what_follows_from_others(self) -> Self:
        if self.method == "context":
            self._fill_in_for_context()
        self._fill_in("training", **_TRAINING.get(self.method, {}))
        if self.method == "densesiam":
            self._fill_in("densesiam", region_from_epoch=self.training.epochs * 4 // 5)
        return self

    def _fill_in_for_context(self) -> None:
        """Let a network that has at most seen these images lean on what it learns, rather than on how it starts."""
        guidance, embedding = self.context.guidance, self.context.embedding
        all_given = guidance.teacher != "auto" and embedding.to_the_end is not None
        if all_given and "learning_rate" in self.training.model_fields_set:
            return  # as in the settings of a run, whose file of weights may be gone
        knows_little = self.backbone.knows_little()
        if knows_little:
            self._fill_in("training", learning_rate=1e-3)
        if guidance.teacher == "auto":
            guidance = guidance.model_copy(update={"teacher": "student" if knows_little else "start"})
        if embedding.to_the_end is None:
            asked_for = 0 if self.choose_n_classes else self.n_classes
            embedding = embedding.model_copy(update={"to_the_end": not knows_little and asked_for > FEW_CLASSES})
        filled = self.context.model_copy(update={"guidance": guidance, "embedding": embedding})
        object.__setattr__(self, "context", filled)

    def _fill_in(self, section: str, **values: Any) -> None:
        own: Section = getattr(self, section)
        missing = {name: value for name, value in values.items() if name not in own.model_fields_set}
        object.__setattr__(self, section, own.model_copy(update=missing))  # frozen from here on

    def describe_start(self, images: str = "these images") -> str:
        """Name the start of the network, as every table must show it; `images` are what it is pre-trained on."""
        if self.method == "lab":
            return "none"
        given = self.backbone.describe_start()
        if self.start == "backbone":
            return given
        own = f"self-supervised ({self.pretraining.method}) on {images}"
        return own if given == "random" else f"{own}, from {given}"

    def to_yaml(self) -> str:
        """Return the resolved settings as YAML that `load_settings` reads back."""
        unused = set(METHOD_SECTIONS) - {self.method}
        if self.start != "pretrain":
            unused.add("pretraining")
        return yaml.safe_dump(self.model_dump(mode="json", exclude=unused), sort_keys=False)


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Build the settings from a nested mapping.

    Raises:
        SettingsError: names each wrong key with what was got; an unknown key names the nearest real one.

    >>> make_settings({"n_classes": 3, "training": {"epoch": 5}})
    Traceback (most recent call last):
        ...
    contextseg.errors.SettingsError: training.epoch: no such setting; did you mean 'training.epochs'?
    """
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(detail) for detail in error.errors())) from None


_SCHEDULE = ("epochs", "batch_size", "learning_rate", "decay")


def make_pretraining_settings(values: Mapping[str, Any]) -> Settings:
    """Build the settings of a pre-training by itself, which trains the backbone alone.

    Raises:
        SettingsError: as `make_settings`, and for a setting that only a run with classes reads.

    >>> make_pretraining_settings({"training": {"epochs": 5}})
    Traceback (most recent call last):
        ...
    contextseg.errors.SettingsError: training.epochs: pre-training does not read it; it has pretraining.epochs
    """
    for name in ("n_classes", "method", "start", "clustering", *METHOD_SECTIONS):
        if name in values:
            raise SettingsError(f"{name}: pre-training does not read it; it trains the backbone alone")
    training = values.get("training")
    for name in _SCHEDULE:
        if isinstance(training, Mapping) and name in training:
            near = f"pretraining.{name}" if name in PretrainingSettings.model_fields else "no such setting"
            raise SettingsError(f"training.{name}: pre-training does not read it; it has {near}")
    unread = {"n_classes": 2, "method": "picie"}  # a run must have them; nothing is clustered
    return make_settings({**values, **unread, "start": "pretrain"})


def load_settings(path: Path) -> dict[str, Any]:
    """Read a nested mapping of settings from a YAML file.

    Raises:
        SettingsError: the file is missing or does not hold a mapping.
    """
    try:
        values = _read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, *_YAML_ERRORS) as error:
        raise SettingsError(f"{path}: cannot be read as YAML settings: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(
            f"{path}: holds {type(values).__name__}, expected 'key: value' lines such as 'n_classes: 8'"
        )
    return values


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return `values` with dotted assignments laid over them; nothing is changed in place.

    >>> override({"training": {"epochs": 5}}, ["training.batch_size=8", "seed=2"])
    {'training': {'epochs': 5, 'batch_size': 8}, 'seed': 2}
    """
    result: dict[str, Any] = dict(values)
    for assignment in assignments:
        dotted, separator, text = assignment.partition("=")
        if not separator or not dotted:
            raise SettingsError(f"--set got '{assignment}', expected key=value such as training.epochs=5")
        try:
            value = _read_yaml(text)
        except _YAML_ERRORS as error:
            raise SettingsError(f"--set {dotted}: the value '{text}' cannot be read: {error}") from error
        _assign(result, dotted.split("."), value)
    return result


class _Loader(yaml.SafeLoader):
    """YAML without aliases, by which a short file can stand for more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases (*name), which settings do without")
        return super().compose_node(parent, index)


# a date such as 2001-13-01 and an integer of 5000 digits are ValueErrors
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def _assign(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    *parents, last = keys
    for key in parents:
        branch = tree.get(key) or {}
        if not isinstance(branch, Mapping):
            raise SettingsError(f"{key}: got {branch!r}, expected settings of its own, such as {'.'.join(keys)}")
        tree[key] = tree = dict(branch)
    tree[last] = value


def _explain(detail: Any) -> str:
    """Put one pydantic error into a line: which key, what was got, what would work."""
    keys = [str(key) for key in detail["loc"]]
    dotted = ".".join(keys)
    if detail["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(dotted, setting_names(), n=1, cutoff=0.0)
        return f"{dotted}: no such setting; did you mean '{nearest[0]}'?"
    if detail["type"] == "missing":
        return f"{dotted}: is missing; give a value such as {dotted}=8"
    if detail["type"] == "value_error":
        return f"{dotted}: {detail['ctx']['error']}" if dotted else str(detail["ctx"]["error"])
    return f"{dotted}: got {reprlib.repr(detail['input'])}; {detail['msg'][0].lower()}{detail['msg'][1:]}"


def setting_names(section: type[Section] = Settings, prefix: str = "") -> list[str]:
    """Return the dotted names of all settings."""
    names = []
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            names += setting_names(annotation, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names
