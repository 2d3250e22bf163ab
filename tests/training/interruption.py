"""Ctrl-C at a certain step of a run."""

import os
import signal

import pytest

from contextseg.run_folder import RunFolder


def interrupt_after(n_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next run be interrupted once it has logged so many steps."""
    log, n_logged = RunFolder.log, 0

    def log_and_interrupt(run: RunFolder, **values: object) -> None:
        nonlocal n_logged
        log(run, **values)
        n_logged += "step" in values
        if n_logged == n_steps and "step" in values:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RunFolder, "log", log_and_interrupt)
