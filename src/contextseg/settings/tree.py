"""The tree: all sections of a run, whether they agree, and the defaults that follow from others."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from contextseg.conventions import FEW_CLASSES, STRIDE_PX
from contextseg.settings.methods import (
    METHOD_SECTIONS,
    ContextSettings,
    DenseSiamSettings,
    IicSettings,
    KmeansSettings,
    LabSettings,
    MdcSettings,
    PicieSettings,
    StegoSettings,
)
from contextseg.settings.sections import (
    BackboneSettings,
    ClusteringSettings,
    DataSettings,
    PretrainingSettings,
    Section,
    TrainingSettings,
    ViewSettings,
)

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
        own, guidance, embedding = self.context, self.context.guidance, self.context.embedding
        all_given = guidance.teacher != "auto" and None not in (embedding.to_the_end, own.n_draws, own.n_partitions)
        if all_given and "learning_rate" in self.training.model_fields_set:
            return  # as in the settings of a run, whose file of weights may be gone
        knows_little = self.backbone.knows_little()
        if knows_little:
            self._fill_in("training", learning_rate=1e-3)
        if guidance.teacher == "auto":
            guidance = guidance.model_copy(update={"teacher": "student" if knows_little else "start"})
        many = not knows_little and not self.choose_n_classes and self.n_classes > FEW_CLASSES
        if embedding.to_the_end is None:
            embedding = embedding.model_copy(update={"to_the_end": many})
        n_draws = own.n_draws or (3 if many else 1)
        numbers = {"n_draws": n_draws, "n_partitions": own.n_partitions or (12 if n_draws > 1 else 32)}
        filled = own.model_copy(update={"guidance": guidance, "embedding": embedding, **numbers})
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
