"""The exceptions of contextseg: one small tree, so that a caller can catch what it can act on.

ContextsegError
├── SettingsError    a setting is unknown, malformed or contradicts another
├── DataError        a data set, folder or label file cannot be used
│   └── ImageError   one image file cannot be used (a run leaves it out and goes on)
├── WeightsError     a weights file does not fit the network
├── RunError         a run folder is missing, incomplete or of another kind
├── ClassesError     classes.json, or a change to it, makes no sense
├── LibraryError     a library that an extra installs is absent
├── WriteError       a file cannot be written (a full disk, a read-only folder); an OSError too
├── TrainingError    training cannot go on (a loss that is not finite, too few images)
└── ProcessError     of several processes, one cannot go on, or the others do not answer it
"""

import errno
from pathlib import Path


class ContextsegError(Exception):
    """Base of every error that contextseg raises on purpose."""


class SettingsError(ContextsegError):
    """A setting is unknown, malformed or contradicts another."""


class DataError(ContextsegError):
    """A data set, folder or label file cannot be used."""


class ImageError(DataError):
    """One image file cannot be used.

    Args:
        path: the file.
        reason: what is wrong with it, in words that a user can act on.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


class WeightsError(ContextsegError):
    """A weights file does not fit the network."""


class RunError(ContextsegError):
    """A run folder is missing, incomplete or of another kind."""


class ClassesError(ContextsegError):
    """classes.json, or a change to it, makes no sense."""


class LibraryError(ContextsegError):
    """A library that an extra installs is absent."""


class WriteError(ContextsegError, OSError):
    """A file cannot be written; what stood there before is unchanged.

    Args:
        path: the file or folder.
        error: what the system said.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        reason = "the disk is full" if full else f"{error.strerror or error}"
        way_out = (
            "free some space, or choose a folder on another disk" if full else "choose a folder that may be written"
        )
        super().__init__(
            f"{path}: cannot be written: {reason}; {way_out}. What fit, pretrain and predict have made stays: "
            "they go on with --resume"
        )
        self.path = path
        self.errno = error.errno


class TrainingError(ContextsegError):
    """Training cannot go on."""


class ProcessError(ContextsegError):
    """Of several processes, one cannot go on, or the others do not answer it."""
