"""`python -m contextseg` is the command `contextseg`."""

from contextseg.cli import app

app()
