"""The settings of a run: one tree, checked when it is built, the same names in Python, in YAML and after `--set`.

Every default of a setting stands here and nowhere else. A method's own section (``picie``, ``kmeans``, ``lab``, ..) may
be set only when that method is chosen, so that no setting is silently without effect.
"""

from contextseg.settings.methods import METHOD_SECTIONS, EmbeddingSettings, StegoSettings
from contextseg.settings.reading import (
    described,
    load_settings,
    make_pretraining_settings,
    make_settings,
    override,
    setting_names,
)
from contextseg.settings.sections import FROM_RANDOM, BackboneSettings, Section, TrainingSettings, ViewSettings
from contextseg.settings.tree import MOST_CLASSES, Settings

__all__ = [
    "FROM_RANDOM",
    "METHOD_SECTIONS",
    "MOST_CLASSES",
    "BackboneSettings",
    "EmbeddingSettings",
    "Section",
    "Settings",
    "StegoSettings",
    "TrainingSettings",
    "ViewSettings",
    "described",
    "load_settings",
    "make_pretraining_settings",
    "make_settings",
    "override",
    "setting_names",
]
