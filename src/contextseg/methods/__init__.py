"""The methods by name: each builds its network from the settings."""

from collections.abc import Callable

from contextseg.methods.context import Context
from contextseg.methods.kmeans import Kmeans
from contextseg.methods.lab import Lab
from contextseg.methods.method import Method
from contextseg.methods.picie import Picie

METHODS: dict[str, Callable[..., Method]] = {"context": Context, "picie": Picie, "kmeans": Kmeans, "lab": Lab}
