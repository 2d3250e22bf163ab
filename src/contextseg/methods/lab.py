"""`lab`: k-means on colour and position, the floor of every table. Nothing is trained."""

from typing import ClassVar

from contextseg.methods.method import Method
from contextseg.models.embedding import LabPosition
from contextseg.settings import Settings


class Lab(Method):
    """CIE Lab colour and weighted position, clustered by their Euclidean distance."""

    spherical: ClassVar[bool] = False
    lasting_clusters = True

    def __init__(self, settings: Settings, *, load_start: bool = True) -> None:
        super().__init__(LabPosition(settings.lab.position_weight), settings)
