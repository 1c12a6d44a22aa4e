"""The tree of errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

import hookline.secret
from hookline import Item, errors
from hookline.errors import OUTCOMES, REFUSALS, Flaw, HooklineError, Invalid, Refused, below


def drawn() -> dict[str, str]:
    """Class -> base, as the drawing at the top of errors.py has it."""
    parents: dict[str, str] = {}
    above = ["HooklineError"]
    for line in (errors.__doc__ or "").splitlines():
        branch, found, rest = line.partition("─ ")
        if found:
            depth = len(branch) // 4 + 1
            name = rest.split()[0]
            parents[name] = above[depth - 1]
            above[depth:] = [name]
    return parents


def real(base: type[HooklineError] = HooklineError) -> dict[str, str]:
    """Class -> base, of all that the engine defines."""
    parents: dict[str, str] = {}
    for error in base.__subclasses__():
        if error.__module__.partition(".")[0] == "hookline":
            parents |= {error.__name__: base.__name__, **real(error)}
    return parents


def test_the_drawing_is_the_hierarchy() -> None:
    assert hookline.secret.Unopenable.__base__ is HooklineError
    assert drawn() == real()


def test_every_error_has_a_code_of_its_own() -> None:
    names = ["HooklineError", *real()]
    classes = [getattr(errors, name, None) or getattr(hookline.secret, name) for name in names]
    assert len({error.code for error in classes}) == len(classes)
    assert all(error.__doc__ for error in classes)


def test_refusals_are_the_outcome_words() -> None:
    assert {"ok", "settings_changed", *REFUSALS} == OUTCOMES
    for word, refusal in REFUSALS.items():
        assert refusal.code == word
        assert str(refusal()) == refusal.explanation != Refused.explanation
    assert {refusal.__name__ for refusal in REFUSALS.values()} == {
        name for name, base in real().items() if base == "Refused"
    } - {"ReservedKey", "MissingScope", "KeyNotAllowed", "InvalidApiKey", "UnknownApiKey"}


def test_invalid_names_every_flaw() -> None:
    invalid = Invalid(Flaw("/a/b", "expected x"), Flaw("", "expected y"))
    assert str(invalid) == "/a/b: expected x; /: expected y"
    assert Invalid.at("/a", "b").flaws == (Flaw("/a", "b"),)


@pytest.mark.parametrize(
    ("name", "pointer"), [("a", "/x/a"), ("a/b", "/x/a~1b"), ("~1", "/x/~01"), ("", "/x/"), (5, "/x/5")]
)
def test_pointers_are_rfc_6901(name: object, pointer: str) -> None:
    assert below("/x", name) == pointer


def kinds(base: type[HooklineError] = HooklineError) -> list[type[HooklineError]]:
    return [base, *(each for kind in base.__subclasses__() for each in kinds(kind))]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_gets_to_another_process_whole(again: Callable[[HooklineError], HooklineError]) -> None:
    item = Item("jobs", "a", None, {}, (), 1, "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.000Z")
    for kind in kinds():
        if kind.__module__.partition(".")[0] != "hookline":
            continue
        if issubclass(kind, Invalid):
            error: HooklineError = kind(Flaw("/a", "expected x"), Flaw("", "expected y"))
        elif issubclass(kind, Refused):
            error = kind("not now", item)
        else:
            error = kind("not now")
        found = again(error)
        assert type(found) is kind
        assert (str(found), vars(found)) == (str(error), vars(error))
