"""What a person can decide, each as one line of the log; docs/review.md lists them.

A change of the classes knows how it is carried out. `Undo` and `Redo` are entries like any other: the log only grows.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from contextseg.classes import Byte, Classes, SegmentClass


class Action(BaseModel):
    """One entry of the log."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)

    def change(self, classes: Classes) -> Classes:
        """Return the classes after this action.

        Raises:
            ClassesError: the action makes no sense for these classes.
        """
        return classes


class Take(Action):
    """The classes as the file holds them: the first entry, and one for each edit from outside of the page."""

    action: Literal["take"] = "take"
    classes: tuple[SegmentClass, ...]

    def change(self, classes: Classes) -> Classes:  # noqa: D102
        return Classes(self.classes)


class Name(Action):
    """Give a class a name."""

    action: Literal["name"] = "name"
    id: int
    name: str

    def change(self, classes: Classes) -> Classes:  # noqa: D102
        return classes.rename({self.id: self.name})


class Colour(Action):
    """Give a class a colour."""

    action: Literal["colour"] = "colour"
    id: int
    colour: tuple[Byte, Byte, Byte]

    def change(self, classes: Classes) -> Classes:  # noqa: D102
        return classes.recolour({self.id: self.colour})


class Merge(Action):
    """Make classes part of another one, or take that back."""

    action: Literal["merge"] = "merge"
    into: int
    others: tuple[int, ...] = Field(min_length=1)
    undo: bool = False

    def change(self, classes: Classes) -> Classes:  # noqa: D102
        return classes.merge(self.into, self.others, undo=self.undo)


class Hide(Action):
    """Make classes background, or take that back."""

    action: Literal["hide"] = "hide"
    ids: tuple[int, ...] = Field(min_length=1)
    undo: bool = False

    def change(self, classes: Classes) -> Classes:  # noqa: D102
        return classes.hide(self.ids, undo=self.undo)


class Correct(Action):
    """Give the connected region under a point another class; `contextseg.review.corrections` carries it out.

    Attributes:
        image: name of the mask, relative to the folder of masks.
        point: (x, y) in pixels of the mask.
        members: the clusters that were one class at that time: the region is theirs, whatever is merged later.
        to: id of the class that it becomes.
    """

    action: Literal["correct"] = "correct"
    image: str
    point: tuple[int, int]
    members: tuple[int, ...] = Field(alias="from")
    to: int


class Undo(Action):
    """Take the last action back."""

    action: Literal["undo"] = "undo"


class Redo(Action):
    """Carry the action out again that was taken back last."""

    action: Literal["redo"] = "redo"


Request = Name | Colour | Merge | Hide | Undo | Redo
REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="action")])
"""What the page may ask for in one piece."""
ENTRY: TypeAdapter[Request | Take | Correct] = TypeAdapter(
    Annotated[Request | Take | Correct, Field(discriminator="action")]
)
"""What a line of the log may be."""
