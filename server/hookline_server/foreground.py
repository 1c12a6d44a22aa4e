"""``hookline orchestrate``: claims with triggers on at ticks of its own, from a terminal; nothing of it is stored."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hookline.clock import format_time
from hookline.errors import OutcomeUnknown, Unavailable
from hookline.recurrence import Recurrence
from hookline.transport import Http
from hookline_server import remote
from hookline_server.table import harmless, plain


@dataclass(frozen=True, slots=True)
class Foreground:
    """An orchestration of this process. ``claim`` is the body of each claim; None for ``recurrence`` is once, now."""

    server: Http
    key: str
    claim: dict[str, Any]
    recurrence: Recurrence | None
    jitter_ms: int
    say: Callable[[str], None]
    as_json: bool

    async def run(self) -> None:
        """Claim at each tick until cancelled; where no server answers, that is said and tried again.

        Raises:
            HooklineError: the server refused the claim; or it is to be done once, and no server answers.
        """
        if self.recurrence is None:
            return await self._claim()
        tick = self.recurrence.first(_now_ms())
        while True:
            due = tick + random.randint(0, self.jitter_ms)  # noqa: S311 - spreads runs, guards nothing
            await asyncio.sleep(max(0, due - _now_ms()) / 1000)
            try:
                await self._claim()
            except (Unavailable, OutcomeUnknown) as error:
                self._tell({"at": format_time(_now_ms()), "key": self.key, "error": str(error)}, str(error))
            tick = self.recurrence.after(tick, max(tick, _now_ms()))

    async def _claim(self) -> None:
        path = f"/v1/jobs/{quote(self.key, safe='')}/claim"
        answer = await remote.ask(self.server, "POST", path, self.claim)
        names = [item["sortField"] for item in answer["items"]]
        run = {"at": format_time(_now_ms()), "key": self.key, "claimed": len(names), "sortFields": names}
        run |= {name: answer[name] for name in ("nextAt", "paused", "problem") if name in answer}
        why = ", which is paused" if answer.get("paused") else ""
        self._tell(run, f"claimed {len(names)} of {self.key}{why} {' '.join(names)}".rstrip())

    def _tell(self, run: dict[str, Any], sentence: str) -> None:
        if self.as_json:
            self.say(harmless(json.dumps(run, ensure_ascii=False)))
        else:
            self.say(f"{time.strftime('%H:%M:%S')} {plain(sentence)}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
