"""How a command ends: its exit code, and what it says on stderr."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer

from hookline import errors
from hookline.errors import HooklineError, Invalid

Result = TypeVar("Result")

DONE, FAILED, MISUSED, AWAY, MISSING, FORBIDDEN, UNKNOWN, STUCK, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 7, 130
CODES = {
    DONE: "done",
    FAILED: "refused, or what was looked at is not as it should be",
    MISUSED: "the arguments, or what they name, cannot be meant so",
    AWAY: "the server or the store is away, or cannot be used",
    MISSING: "there is no such thing, or nothing to claim",
    FORBIDDEN: "the API key is missing, not good, or not allowed to do this",
    UNKNOWN: "no answer came, so it may have been done or not",
    STUCK: "a worker's handler would not end",
    INTERRUPTED: "Ctrl-C",
}
"""Every exit code, and what it says."""

_ENDS: tuple[tuple[type[HooklineError], int, str], ...] = (
    (Invalid, MISUSED, ""),
    (errors.NotFound, MISSING, ""),
    (errors.UnknownApiKey, MISSING, "'hookline keys list' shows them"),
    (errors.InvalidApiKey, FORBIDDEN, "show a good one by --api-key or HOOKLINE_API_KEY"),
    (errors.MissingScope, FORBIDDEN, "'hookline keys list' shows what each may do"),
    (errors.KeyNotAllowed, FORBIDDEN, "'hookline keys list' shows what each may do"),
    (errors.Unavailable, AWAY, ""),
    (errors.Incompatible, AWAY, ""),
    (errors.OutcomeUnknown, UNKNOWN, "look at what is there before you repeat it"),
    (errors.Exists, FAILED, "--upsert replaces it"),
    (errors.VersionConflict, FAILED, "'hookline items get' shows the version that it has now"),
    (errors.PreconditionFailed, FAILED, "'hookline items get' shows it as it is now"),
    (errors.Locked, FAILED, "wait for the end of its lock, or show the claim's --token"),
    (errors.StaleToken, FAILED, "claim it again: 'hookline jobs claim'"),
    (
        errors.Cancelled,
        FAILED,
        "'hookline jobs redrive' puts what has failed back in line, 'hookline items update' all else",
    ),
    (errors.Paused, FAILED, "'hookline jobs resume' lets it be claimed again"),
    (errors.OutboxFull, FAILED, "once webhooks have been delivered, or with --no-triggers"),
    (errors.IdempotencyKeyReused, FAILED, "leave --idempotency-key out for what is no repeat"),
)
"""Error -> exit code, and the next step where its own text has none. What is not listed is FAILED."""


@contextmanager
def ending(hint: Callable[[HooklineError], str] = lambda _: "") -> Iterator[None]:
    """End the process well-behaved where what is done within fails: with the error as a sentence, and the next step.

    ``hint`` gives the step for an error where the command knows a better one.
    """
    try:
        yield
    except HooklineError as error:
        code, step = _end_of(error)
        for sentence in _sentences(error):
            fail(sentence)
        if step := hint(error) or step:
            typer.echo(f"  next: {step}", err=True)
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's work to its end; one that fails ends the process as :func:`ending` says."""
    from hookline_server.loop import runner

    with ending(), runner() as running:
        return running.run(work)


def checked(read: Callable[[], Result], option: str = "") -> Result:
    """What ``read`` gives; where it refuses what the user gave, the process ends, and each flaw is said."""
    try:
        return read()
    except Invalid as error:
        for sentence in _sentences(error):
            fail(sentence)
    except (HooklineError, ValueError) as error:
        fail(f"{option + ': ' if option else ''}{error}")
    raise typer.Exit(MISUSED)


def fail(sentence: str) -> None:
    """Say what went wrong."""
    typer.echo(f"hookline: {sentence}", err=True)


def _sentences(error: HooklineError) -> list[str]:
    if not isinstance(error, Invalid):
        return [str(error)]
    return [f"{flaw.pointer.removeprefix('/')}: {flaw.detail}".removeprefix(": ") for flaw in error.flaws]


def _end_of(error: HooklineError) -> tuple[int, str]:
    """Exit code and next step of an error, or of that which it was made of."""
    for found in (error, error.__cause__):
        for kind, code, step in _ENDS:
            if isinstance(found, kind):
                return code, step
    return FAILED, ""
