"""The methods by name: each builds its network from the settings."""

from collections.abc import Callable

from contextseg.methods.context import Context
from contextseg.methods.densesiam import DenseSiam
from contextseg.methods.iic import Iic
from contextseg.methods.kmeans import Kmeans
from contextseg.methods.lab import Lab
from contextseg.methods.mdc import Mdc
from contextseg.methods.method import Method
from contextseg.methods.picie import Picie
from contextseg.methods.stego import Stego

METHODS: dict[str, Callable[..., Method]] = {
    "context": Context,
    "picie": Picie,
    "mdc": Mdc,
    "iic": Iic,
    "densesiam": DenseSiam,
    "stego": Stego,
    "kmeans": Kmeans,
    "lab": Lab,
}
