"""The classes that the labels of a data set tell apart."""

from dataclasses import dataclass, field

from contextseg.conventions import IGNORE
from contextseg.errors import DataError


@dataclass(frozen=True)
class LabelSpace:
    """The names of the classes; the place of a name is the id of its class.

    Args:
        name: of the space, for tables.
        names: of the classes, 1 to 255 of them.
        groups: "things" and "stuff" -> ids of their classes, for scores of each; a class may be in neither.

    Raises:
        DataError: there are no classes or too many, a name is empty or comes twice, or a group holds an id
            of no class.

    >>> LabelSpace("two", ("sky", "sea")).n_classes
    2
    """

    name: str
    names: tuple[str, ...]
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= IGNORE:
            raise DataError(f"label space '{self.name}' has {len(self.names)} classes, expected 1 to {IGNORE}")
        for i, name in enumerate(self.names):
            if not name:
                raise DataError(f"label space '{self.name}': class {i} has no name")
            if name in self.names[:i]:
                raise DataError(f"label space '{self.name}': '{name}' names classes {self.names.index(name)} and {i}")
        for group, ids in self.groups.items():
            unknown = [i for i in ids if not 0 <= i < self.n_classes]
            if unknown:
                raise DataError(
                    f"label space '{self.name}': group '{group}' holds {unknown}, ids go from 0 to {self.n_classes - 1}"
                )

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.names)
