"""The sections of the methods, one each: what a method alone reads."""

from typing import Annotated, Literal

from pydantic import Field

from contextseg.conventions import FEW_CLASSES
from contextseg.settings.sections import Section


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
    n_draws: int | None = Field(
        None,
        ge=1,
        description="draws of images, each of which the places are grouped from anew before they are put to the vote; "
        f"by default 3 where the start knows something and more than {FEW_CLASSES} classes are asked for, else 1",
    )
    n_partitions: int | None = Field(
        None,
        ge=1,
        description="groupings of the places that each draw makes the classes from; by default 12, and 32 where there "
        "is one draw",
    )
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
