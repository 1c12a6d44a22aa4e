"""How a command ends: its exit code, and what it says on stderr."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import typer
from typer.main import get_current_context  # type: ignore[attr-defined]  # whose click is its own

from hookline import errors
from hookline.errors import HooklineError, Invalid
from hookline_server import interrupt

Result = TypeVar("Result")

DONE, FAILED, MISUSED, AWAY, MISSING, FORBIDDEN, UNKNOWN, STUCK = range(8)
INTERRUPTED, UNREAD = interrupt.INTERRUPTED, 141
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
    UNREAD: "who read the output went away",
}
"""Every exit code, and what it says."""

_SURROGATES = "surrogates not allowed"
"""Why text cannot be sent that an argument has brought, whose bytes are no UTF-8."""
UNWRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of the system that say that output cannot be written. A reader that goes away is another matter."""
UNKNOWN_PATH = "unknown_path"
"""The code of a server that has nothing at a path, as an error tells it."""

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
    (errors.NotClaimable, FAILED, "'hookline items get' shows it as it is now"),
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
    interrupt.be_told()
    try:
        yield
    except HooklineError as error:
        code, step = _end_of(error)
        for sentence in _sentences(error):
            fail(sentence)
        if step := _astray(error) or hint(error) or step or _away(error):
            typer.echo(f"  next: {step}", err=True)
        raise typer.Exit(code) from None
    except UnicodeEncodeError as error:
        if error.reason != _SURROGATES:
            raise
        fail(f"{_whose(error.object)}expected text in UTF-8")
        raise typer.Exit(MISUSED) from None
    except KeyboardInterrupt:
        drop_output()
        raise typer.Exit(INTERRUPTED) from None


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's work to its end; one that fails ends the process as :func:`ending` says."""
    from asyncio import CancelledError

    from hookline_server.loop import runner

    with ending(), runner() as running:
        try:
            return running.run(work)
        except CancelledError:  # by a signal that it has a handler of its own for, as at a pipe
            raise KeyboardInterrupt from None


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


def drop_output() -> None:
    """Forget the output that nobody has taken yet: the very end would try it again, and wait for a full pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(sentence: str) -> None:
    """Say what went wrong."""
    typer.echo(f"hookline: {sentence}", err=True)


def _sentences(error: HooklineError) -> list[str]:
    if not isinstance(error, Invalid):
        return [str(error)]
    return [f"{_place(flaw.pointer)}: {flaw.detail}".removeprefix(": ") for flaw in error.flaws]


def _place(pointer: str) -> str:
    """What a JSON pointer names, as the user gave it: an option or argument, and where in its JSON that was.

    ``/lockFor`` is ``--lock-for``, ``/where/size`` is ``--where /size``; what no option has stays as it is.
    """
    if pointer == "/store_url":  # read where the store is opened, so who opens it knows no other name
        option = _given("store") or _given("store_url")
        return "--store" if option else "HOOKLINE_STORE_URL" if os.environ.get("HOOKLINE_STORE_URL") else "store_url"
    context = get_current_context(silent=True)
    first, slash, rest = pointer.removeprefix("/").partition("/")
    name = re.sub("[A-Z]", lambda capital: f"-{capital[0].lower()}", first)
    for parameter in context.command.params if context and first else ():
        if f"--{name}" in parameter.opts:
            return f"{parameter.opts[0]}{slash and ' /'}{rest}"
        if f"--{name.removesuffix('s')}" in parameter.opts:  # given once for each member of a list
            return str(parameter.opts[0])
        if parameter.param_type_name == "argument" and parameter.name == name.replace("-", "_"):
            return str(parameter.name.upper())
    return pointer.removeprefix("/")


def _whose(text: str) -> str:
    """The option or argument that was given this text, and a colon; empty where it stood inside of one."""
    context = get_current_context(silent=True)
    for parameter in context.command.params if context else ():
        given = _given(str(parameter.name))
        if text in (given if isinstance(given, list) else [given]):
            is_argument = parameter.param_type_name == "argument"
            return f"{str(parameter.name).upper() if is_argument else parameter.opts[0]}: "
    return ""


def _given(name: str) -> Any:
    """What the command was given as an option; None where it has no such."""
    context = get_current_context(silent=True)
    return context.params.get(name) if context else None


def _astray(error: HooklineError) -> str:
    """The next step where nothing was found at an address that has a path, as one behind a proxy may have."""
    url = _given("url")
    if url and UNKNOWN_PATH in f"{error} {error.__cause__}" and urlsplit(url).path.strip("/"):
        return "--url is the address of the server alone, without /v1; a path is only what a proxy has before that"
    return ""


def _away(error: HooklineError) -> str:
    """The next step where nobody answers: the server that is asked, or a store."""
    if not isinstance(error, errors.Unavailable):
        return ""
    if _given("url"):
        return "try again; 'hookline serve' starts a server, --url names another"
    if str(error).startswith(("the store gave no answer", "the store cannot be reached")):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return "name the authority of the store's certificate in its URL: rediss://host:port?ssl_ca_certs=FILE"
        return "start the store, or name another by --store or HOOKLINE_STORE_URL"
    return ""


def _end_of(error: HooklineError) -> tuple[int, str]:
    """Exit code and next step of an error, or of that which it was made of."""
    for found in (error, error.__cause__):
        for kind, code, step in _ENDS:
            if isinstance(found, kind):
                return code, step
    return FAILED, ""
