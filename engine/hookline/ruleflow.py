"""What is done about rules over HTTP, as flows: see :mod:`hookline.flow`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from hookline import answers
from hookline.calls import UNSET
from hookline.flow import Flow, Request, path
from hookline.item import check_key
from hookline.outcome import Claimed, Outcome
from hookline.rule import Orchestration, Rule, Runs, Schedule, Stored, Tick

R = TypeVar("R", bound=Rule)
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Kind(Generic[R, A]):
    """A kind of rules: where it is, what its rules are, and how the answer to a run reads."""

    name: str
    rule: type[R]
    read_run: Callable[[Any], A]

    def path(self, name: str, rest: str = "") -> str:
        """Where a rule is.

        Raises:
            Invalid: no rule can have this name.
        """
        return path(self.name, check_key(name, "/name")) + rest

    def stored(self, shown: Mapping[str, Any]) -> Stored[R]:
        """A rule as it reads over HTTP."""
        names = {field.encode_name for field in msgspec.structs.fields(self.rule)} - {"triggerUrls"}
        return Stored(
            shown["name"],
            msgspec.convert({name: value for name, value in shown.items() if name in names}, self.rule),
            shown["nextRun"],
            shown["lastRun"],
            shown["version"],
            shown["updatedAt"],
            answers.read_triggers(shown.get("triggerUrls", ())),
        )

    def ask(self, method: str, name: str, rest: str = "", body: Any = UNSET) -> Flow[Stored[R]]:
        """Change or read a rule, which does no harm twice -> the rule."""
        return self.stored((yield Request(method, self.path(name, rest), body, harmless=True)).data)

    def all(self) -> Flow[list[Stored[R]]]:
        """All rules."""
        found: list[Stored[R]] = []
        cursor: str | None = ""
        while cursor is not None:
            where = path(self.name) + (f"?cursor={quote(cursor, safe='')}" if cursor else "")
            page = (yield Request("GET", where, harmless=True)).data
            found += map(self.stored, page["items"])
            cursor = page["cursor"]
        return found

    def delete(self, name: str) -> Flow[None]:
        """Remove a rule."""
        yield Request("DELETE", self.path(name))

    def run(self, name: str) -> Flow[A]:
        """Run a rule."""
        return self.read_run((yield Request("POST", self.path(name, "/run"))).data)

    def runs(self, name: str, limit: int, cursor: str | None) -> Flow[Runs]:
        """What came of its runs."""
        after = f"&cursor={quote(cursor, safe='')}" if cursor is not None else ""
        shown = (yield Request("GET", self.path(name, f"/runs?limit={limit}{after}"), harmless=True)).data
        return Runs(shown["items"], shown["cursor"])

    def next(self, name: str, count: int) -> Flow[list[Tick]]:
        """When it is due."""
        shown = (yield Request("GET", self.path(name, f"/next?count={count}"), harmless=True)).data
        return [Tick(**tick) for tick in shown["ticks"]]


ORCHESTRATIONS: Kind[Orchestration, Claimed] = Kind("orchestrations", Orchestration, answers.read_claimed)
SCHEDULES: Kind[Schedule, Outcome] = Kind("schedules", Schedule, answers.read_written)
