"""`kmeans`: spherical k-means on the features of the backbone as it starts. Nothing is trained."""

from contextseg.methods.method import Method
from contextseg.models.backbone import Backbone
from contextseg.models.embedding import BackboneFeatures
from contextseg.settings import Settings


class Kmeans(Method):
    """The backbone's deeper feature maps, each of unit length, joined and clustered."""

    lasting_clusters = True

    def __init__(self, settings: Settings, *, load_start: bool = True) -> None:
        backbone = Backbone(settings.backbone, load_start=load_start)
        super().__init__(BackboneFeatures(backbone, settings.kmeans.strides), settings)
