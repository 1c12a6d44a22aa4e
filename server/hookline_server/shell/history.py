"""The history of the shell: kept for the next time, but for what may have secrets in it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

_SECRET = re.compile(
    r"""://                               # a trigger has a URL, however its field is misspelt
      | trigger[\s_-]*url | api[\s_-]*key
      | secret | password | passwd | credential | authorization | bearer
      | token["']?\s*:(?!\s*["']?\[[A-Za-z_][\w.]*\])  # but a placeholder is no secret
    """,
    re.IGNORECASE | re.VERBOSE,
)


def may_hold_secrets(text: str) -> bool:
    """Whether a text names what is secret: the API key of a trigger, a token, a password."""
    return _SECRET.search(text) is not None


class PrivateHistory(FileHistory):
    """A history file for its owner alone. What may have secrets in it is remembered until the shell ends."""

    def store_string(self, string: str) -> None:
        """Write a text to the file; one that begins with a space is not written either."""
        if not (may_hold_secrets(string) or string.startswith(" ")):
            super().store_string(string)


def history_file() -> Path:
    """Where the history is kept: below XDG_STATE_HOME, by default ``~/.local/state``."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "hookline" / "history"


def open_history() -> History:
    """The history, with its file made for its owner alone; where that cannot be, it lasts as long as the shell."""
    path = history_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except (OSError, RuntimeError):
        return InMemoryHistory()
    return PrivateHistory(path)
