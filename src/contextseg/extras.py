"""Libraries that only some users need: an absent one is answered with the command that installs it."""

import importlib
from typing import Any

from contextseg.errors import LibraryError


def import_extra(module: str, extra: str) -> Any:
    """Import a module of an optional library.

    Args:
        module: such as "pycocotools.mask".
        extra: the extra of this package that installs it.

    Raises:
        LibraryError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        library = (error.name or module).split(".")[0]
        raise LibraryError(
            f"this needs {library}, which is not installed: pip install 'contextseg[{extra}]'"
        ) from error
