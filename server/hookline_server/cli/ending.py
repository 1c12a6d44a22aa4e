"""How a command ends: its exit code, and what it says on stderr."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import typer

Result = TypeVar("Result")

FAILED = 1
MISUSED = 2
INTERRUPTED = 130


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's work to its end; one that fails ends the process with its error as a sentence."""
    from hookline.errors import HooklineError
    from hookline_server.loop import runner

    try:
        with runner() as running:
            return running.run(work)
    except HooklineError as error:
        fail(str(error))
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def checked(read: Callable[[], Result], option: str = "") -> Result:
    """What ``read`` gives; where it refuses what the user gave, the process ends, and each flaw is said."""
    from hookline.errors import HooklineError, Invalid

    try:
        return read()
    except Invalid as error:
        for flaw in error.flaws:
            fail(f"{flaw.pointer.removeprefix('/')}: {flaw.detail}")
    except (HooklineError, ValueError) as error:
        fail(f"{option + ': ' if option else ''}{error}")
    raise typer.Exit(MISUSED)


def fail(sentence: str) -> None:
    """Say what went wrong."""
    typer.echo(f"hookline: {sentence}", err=True)
