"""contextseg: semantic segmentation learnt from unlabelled images.

The public names are loaded when they are first used: ``import contextseg`` imports no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextseg.comparison.compare import compare
    from contextseg.estimator import ContextSegmenter
    from contextseg.naming import hide, merge, name
    from contextseg.verbs import evaluate, fit, predict, pretrain

__version__ = "0.1.0.dev0"
__all__ = ["ContextSegmenter", "compare", "evaluate", "fit", "hide", "merge", "name", "predict", "pretrain"]

_HOMES = {
    "ContextSegmenter": "contextseg.estimator",
    "compare": "contextseg.comparison.compare",
    "evaluate": "contextseg.verbs",
    "fit": "contextseg.verbs",
    "hide": "contextseg.naming",
    "merge": "contextseg.naming",
    "name": "contextseg.naming",
    "predict": "contextseg.verbs",
    "pretrain": "contextseg.verbs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'contextseg' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
