"""The decisions on a run: a log that only grows, and the state that follows from reading it."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from contextseg.classes import Classes
from contextseg.errors import ClassesError, RunError
from contextseg.files import write_atomically
from contextseg.review.actions import ENTRY, Action, Correct, Redo, Take, Undo


@dataclass(frozen=True)
class Step:
    """An action that counts, and the classes after it."""

    action: Action
    classes: Classes


class Timeline:
    """The actions that count, and those that were taken back and can be carried out again.

    Args:
        start: the classes before the first action.
    """

    def __init__(self, start: Classes) -> None:
        self.past = [Step(Take(classes=start.entries), start)]
        self.future: list[Step] = []

    @property
    def classes(self) -> Classes:
        """The classes as they are now."""
        return self.past[-1].classes

    def corrections(self, image: str) -> list[Correct]:
        """Return the corrections of one image, in their order."""
        actions = [step.action for step in self.past]
        return [action for action in actions if isinstance(action, Correct) and action.image == image]

    def follow(self, action: Action) -> None:
        """Go on by one action.

        Raises:
            ClassesError: it makes no sense now; nothing has changed.
        """
        if isinstance(action, Undo):
            if len(self.past) == 1:
                raise ClassesError("there is nothing to undo")
            self.future.append(self.past.pop())
        elif isinstance(action, Redo):
            if not self.future:
                raise ClassesError("there is nothing to redo")
            self.past.append(self.future.pop())
        else:
            self.past.append(Step(action, action.change(self.classes)))
            self.future.clear()


class History:
    """The log of a run, its timeline, and classes.json kept in step with them.

    classes.json is written before the log. So whatever happens in between, and whatever other commands do to the file,
    is found as a difference between the two and taken into the log.

    Args:
        log: the file of the log; made if need be. A last line that a kill left unfinished is dropped.
        classes: classes.json of the run.

    Raises:
        RunError: a line of the log makes no sense.
        ClassesError: classes.json is malformed.
    """

    def __init__(self, log: Path, classes: Path) -> None:
        self._log = log
        self._classes = classes
        self._lock = threading.Lock()
        self._load()
        self._take_edits()

    def record(self, action: Action) -> None:
        """Carry out an action and write it down.

        Raises:
            ClassesError: it makes no sense now; nothing has changed.
            OSError: it cannot be written; nothing has changed.
        """
        with self._lock:
            if self._log.stat().st_size != self._size:
                self._load()  # another review of the same run has written
            self._take_edits()
            self.timeline.follow(action)
            try:
                self.timeline.classes.write(self._classes)
                self._append(action)
            except OSError:
                self._load()
                raise

    def _load(self) -> None:
        content = self._log.read_bytes() if self._log.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_atomically(self._log, whole)
        self._size = len(whole)
        self.timeline = Timeline(Classes.read(self._classes))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                action = ENTRY.validate_json(line)
                if number == 1 and isinstance(action, Take):
                    self.timeline = Timeline(action.change(self.timeline.classes))
                else:
                    self.timeline.follow(action)
            except (ValidationError, ClassesError) as error:
                raise RunError(f"{self._log}, line {number}: makes no sense: {error}") from None
        if not whole:
            self._append(self.timeline.past[0].action)

    def _take_edits(self) -> None:
        on_disk = Classes.read(self._classes, len(self.timeline.classes.entries))
        if on_disk != self.timeline.classes:
            edit = Take(classes=on_disk.entries)
            self.timeline.follow(edit)
            self._append(edit)

    def _append(self, action: Action) -> None:
        line = action.model_dump_json().encode() + b"\n"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(line)
