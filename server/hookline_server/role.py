"""What the roles that run beside the API share: a failure costs them one step, never their life."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import TracebackType

from hookline.errors import HooklineError


@dataclass(slots=True)
class Surviving:
    """``with Surviving(log, "a look at the outbox"): ...`` logs what goes wrong in that step, and goes on after it."""

    log: logging.Logger
    step: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        """Let nothing through but what stops the role; a fault of our own is logged with its traceback."""
        if isinstance(error, HooklineError):
            self.log.warning("%s failed: %s", self.step, error)
        elif isinstance(error, Exception):
            self.log.error("%s failed", self.step, exc_info=error)
        return isinstance(error, Exception)
