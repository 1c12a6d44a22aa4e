"""How much this process has done to items: what operators want as a rate, at the price of an addition each."""

from __future__ import annotations

from hookline.call import Call
from hookline.figures import Family
from hookline.item import COMPLETED, RESERVED_PREFIX
from hookline.outcome import Claimed, Outcome

_OPERATIONS = Family(
    "counter",
    "hookline_operations",
    "Operations on items that were accepted, one by one; an update that claims or completes is a claim or complete",
    ("verb",),
)
_SETTLES = ("claim", "complete", "fail", "release", "extend")
_SCRIPTS = {
    "create": "create",
    "create_drain": "create",
    "restore": "create",
    "patch": "update",
    "patch_drain": "update",
    "delete": "delete",
}
_ROWS = {name: _OPERATIONS.row(verb) for name, verb in (*_SCRIPTS.items(), *zip(_SETTLES, _SETTLES, strict=True))}
"""By verb, or else by script. All are there from the start: a rate needs the 0 before the first."""


def note(call: Call, result: Outcome | Claimed) -> None:
    """Count an operation and what became of it: not on keys of the engine's own, nor the answer of before."""
    if result.replayed or call.key.startswith(RESERVED_PREFIX):
        return
    name = call.request.get("verb") or call.script
    # The common one first: of a struct's kind, isinstance takes three times as long to say no.
    if isinstance(result, Outcome):
        if result.word == "ok":
            _ROWS[_change(call, result) if name == "patch_drain" else name][0] += 1
    else:
        _ROWS[name][0] += len(result.items)


def _change(call: Call, outcome: Outcome) -> str:
    """What an update is that claims an item or ends it."""
    if outcome.item is not None and outcome.item.token is not None:
        return "claim"
    return "complete" if call.request.get("set", {}).get("s") == COMPLETED else call.script
