"""The classes of a run as a person sees them: names, colours, which clusters are one class, which are background.

`fit` makes one class of each cluster. A class can be merged into another, and be hidden; ``classes.json`` keeps both
beside the name, so that each can be taken back. It is a list of objects, and may be edited by hand:

id           0 to K - 1, in order: the cluster
name         what people call it
colour       [red, green, blue], 0-255
merged_into  id of the class that it is part of, or null; absent in older files
hidden       true for background, which no mask shows; absent in older files

Shape suffixes: K clusters.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contextseg.colours import palette
from contextseg.errors import ClassesError
from contextseg.files import write_atomically

Byte = Annotated[int, Field(ge=0, le=255)]


def _one_line(name: str) -> str:
    if not name.strip() or not name.isprintable():
        raise ValueError("a name is one line of visible characters, such as 'sky'")
    return name.strip()


class SegmentClass(BaseModel):
    """One entry of classes.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: int
    name: Annotated[str, AfterValidator(_one_line)]
    colour: tuple[Byte, Byte, Byte]
    merged_into: int | None = None
    hidden: bool = False


_FILE = TypeAdapter(tuple[SegmentClass, ...])


@dataclass(frozen=True)
class Classes:
    """All classes of a run, one for each cluster; changes return new ones.

    Args:
        entries: in the order of their ids.

    Raises:
        ClassesError: an id is out of order, a merge leads nowhere or round in a circle, or two classes that are shown
            have one name.

    >>> classes = Classes.numbered(4).rename({0: "sky", 2: "road"}).merge(2, [3]).hide([1])
    >>> [shown.name for shown in classes.shown()]
    ['sky', 'road']
    >>> classes.values(background=255).tolist()
    [0, 255, 2, 2]
    """

    entries: tuple[SegmentClass, ...]

    def __post_init__(self) -> None:
        for place, entry in enumerate(self.entries):
            if entry.id != place:
                raise ClassesError(
                    f"class {place}, id: got {entry.id}; ids count from 0, in order, one for each cluster"
                )
        for entry in self.entries:
            self._survivor(entry)
        by_name: dict[str, int] = {}
        for entry in self.shown():
            if (other := by_name.setdefault(entry.name, entry.id)) != entry.id:
                raise ClassesError(
                    f"classes {other} and {entry.id} would both be named '{entry.name}'; "
                    f"rename one, or make them one class by `contextseg merge RUN {other},{entry.id}`"
                )

    @classmethod
    def numbered(cls, n_classes: int) -> Self:
        """Return "class 0", "class 1" and so on, in the colours of `palette`."""
        colours = palette(n_classes).tolist()
        return cls(tuple(SegmentClass(id=i, name=f"class {i}", colour=tuple(c)) for i, c in enumerate(colours)))

    @classmethod
    def read(cls, path: Path, n_classes: int | None = None) -> Self:
        """Read a classes.json.

        Args:
            path: the file.
            n_classes: how many there must be; any number by default.

        Raises:
            ClassesError: it is missing or malformed; the message names the file, the class and the key.
        """
        try:
            classes = cls(_FILE.validate_json(path.read_bytes()))
        except OSError as error:
            raise ClassesError(f"{path}: cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise ClassesError(f"{path}: {_explain(error)}") from None
        except ClassesError as error:
            raise ClassesError(f"{path}: {error}") from None
        if n_classes not in {None, len(classes.entries)}:
            raise ClassesError(f"{path}: holds {len(classes.entries)} classes, the run has {n_classes} clusters")
        return classes

    @property
    def colours_K3(self) -> NDArray[np.uint8]:
        """The colour of each class, (K, 3) uint8 RGB."""
        return np.array([entry.colour for entry in self.entries], np.uint8)

    def survivors(self) -> NDArray[np.int64]:
        """Return the id of the class that each cluster counts as once the merges are followed, (K,)."""
        return np.array([self._survivor(entry).id for entry in self.entries])

    def shown(self) -> list[SegmentClass]:
        """Return the classes that are neither merged into another nor hidden."""
        return [entry for entry in self.entries if entry.merged_into is None and not entry.hidden]

    def values(self, *, background: int, first: int = 0) -> NDArray[np.unsignedinteger[Any]]:
        """Return the value of each cluster in a mask, (K,): ``values(...)[clusters]`` is the mask; see `looked_up`.

        Args:
            background: value of the hidden classes.
            first: value of class 0; the others follow by their ids.

        Returns:
            uint8 where that holds every value, else uint16.
        """
        hidden_K = np.array([entry.hidden for entry in self.entries])
        survivors_K = self.survivors()
        values_K = np.where(hidden_K[survivors_K], background, survivors_K + first)
        return values_K.astype(np.uint8 if max(background, len(values_K) - 1 + first) <= 255 else np.uint16)

    def rename(self, names: Mapping[int, str]) -> Self:
        """Give names to classes by their ids."""
        return self._changed({i: {"name": name} for i, name in names.items()})

    def recolour(self, colours: Mapping[int, tuple[int, int, int]]) -> Self:
        """Give colours, (red, green, blue) in 0-255, to classes by their ids."""
        return self._changed({i: {"colour": colour} for i, colour in colours.items()})

    def merge(self, into: int, others: Iterable[int], *, undo: bool = False) -> Self:
        """Make other classes part of one; `undo` takes exactly that back."""
        others = list(others)
        if undo and (wrong := [i for i in others if self._entry(i).merged_into != into]):
            raise ClassesError(f"class {wrong[0]} is not merged into {into}, so there is nothing to undo")
        if not undo and into in others:
            raise ClassesError(f"class {into} cannot become part of itself; give another class to merge into it")
        return self._changed({i: {"merged_into": None if undo else into} for i in others})

    def hide(self, ids: Iterable[int], *, undo: bool = False) -> Self:
        """Make classes background; `undo` shows them again. One that is part of another is shown or hidden with it."""
        return self._changed({i: {"hidden": not undo} for i in ids})

    def extended(self, n_classes: int) -> Self:
        """Add new classes after the last, until there are that many, named and coloured as those of `numbered`."""
        return type(self)(self.entries + self.numbered(n_classes).entries[len(self.entries) :])

    def to_json(self) -> str:
        """Return the content of classes.json."""
        return json.dumps([entry.model_dump(mode="json") for entry in self.entries], indent=1, ensure_ascii=False)

    def write(self, path: Path) -> None:
        """Write classes.json, whole or not at all."""
        write_atomically(path, (self.to_json() + "\n").encode())

    def _changed(self, changes: Mapping[int, Mapping[str, Any]]) -> Self:
        entries = list(self.entries)
        for i, change in changes.items():
            try:
                entries[i] = SegmentClass(**{**dict(self._entry(i)), **change})
            except ValidationError as error:
                raise ClassesError(f"class {i}, {_explain(error)}") from None
        return type(self)(tuple(entries))

    def _entry(self, class_id: int) -> SegmentClass:
        if not 0 <= class_id < len(self.entries):
            raise ClassesError(f"there is no class {class_id}; ids go from 0 to {len(self.entries) - 1}")
        return self.entries[class_id]

    def _survivor(self, entry: SegmentClass) -> SegmentClass:
        """Follow the merges of a class to the one that it counts as."""
        path = [entry.id]
        while entry.merged_into is not None:
            if not 0 <= entry.merged_into < len(self.entries):
                raise ClassesError(
                    f"class {entry.id}, merged_into: got {entry.merged_into}; ids go from 0 to {len(self.entries) - 1}"
                )
            entry = self.entries[entry.merged_into]
            path.append(entry.id)
            if entry.id in path[:-1]:
                circle = " -> ".join(map(str, path[path.index(entry.id) :]))
                raise ClassesError(f"the merges would go round in a circle: {circle}; undo one of them first")
        return entry


def looked_up(
    values_K: NDArray[np.unsignedinteger[Any]], ids_HW: NDArray[np.integer]
) -> NDArray[np.unsignedinteger[Any]]:
    """Return ``values_K[ids_HW]``, in a third of its time where both are uint8: numpy makes 64-bit indices of ids."""
    if not values_K.dtype == ids_HW.dtype == np.uint8 or ids_HW.max(initial=0) >= len(values_K):
        return np.asarray(values_K[ids_HW])
    table = values_K.tobytes().ljust(256, b"\0")
    return np.frombuffer(bytearray(ids_HW).translate(table), np.uint8).reshape(ids_HW.shape)


def _explain(error: ValidationError) -> str:
    """Put the first of pydantic's complaints into words."""
    detail = error.errors()[0]
    place = [str(key) for key in detail["loc"]]
    if place and place[0].isdigit():
        place[0] = f"class {place[0]}"
    message = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"]
    got = "" if detail["type"] in {"missing", "json_invalid"} else f"got {detail['input']!r}; "
    return ": ".join([*([", ".join(place)] if place else []), got + message[0].lower() + message[1:]])
