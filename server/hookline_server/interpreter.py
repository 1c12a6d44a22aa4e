"""Runs the commands and loops of a text, one after the other, on a datastore."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from hookline import Datastore
from hookline.errors import HooklineError, Invalid
from hookline.query import ANSWER_MAX
from hookline_server.command import Command, Loop, Statement
from hookline_server.command.names import Names, Unfit
from hookline_server.execute import Result, execute

RESULTS_MAX = 10_000
"""Results of one text, each item in them and each round of a loop counted as well."""
TIME_MAX = 300.0
"""Seconds after which a text begins no further command."""


class Stopped(HooklineError):
    """A command was refused (``cause``); those before it ran, with these ``results``, those after it did not.

    ``index`` is that of the command, or of the loop that it stands in, among those of the text. Of a loop that was
    stopped the last result has the rounds so far.
    """

    code = "stopped"

    def __init__(self, cause: HooklineError, index: int, statement: Statement, results: list[Result]) -> None:
        self.cause = cause
        self.index = index
        self.statement = statement
        self.results = results
        super().__init__(str(cause))

    @property
    def verb(self) -> str:
        """What was refused."""
        return self.statement.verb if isinstance(self.statement, Command) else LOOP

    @property
    def place(self) -> tuple[int, int]:
        """Line and column of what was refused: of its placeholder or field, if one is to blame."""
        if isinstance(self.cause, Unfit):
            return self.cause.line, self.cause.column
        if isinstance(self.cause, Invalid) and self.cause.flaws and isinstance(self.statement, Command):
            return self.statement.place(self.cause.flaws[0].pointer)
        return self.statement.line, self.statement.column


LOOP = "for each"


async def interpret(datastore: Datastore, statements: Sequence[Statement], names: Names | None = None) -> list[Result]:
    """Run statements in order -> a result each. ``names`` takes what they bind.

    Raises:
        Stopped: a command was refused, or the store could not take it.
    """
    results: list[Result] = []
    interpreter = _Interpreter(datastore)
    names = names or Names()
    for index, statement in enumerate(statements):
        try:
            await interpreter.run([statement], names, results)
        except _RefusedError as refused:
            raise Stopped(refused.cause, index, refused.statement, results) from refused.cause
    return results


class _RefusedError(Exception):
    def __init__(self, cause: HooklineError, statement: Statement) -> None:
        self.cause = cause
        self.statement = statement
        super().__init__()


class _Interpreter:
    """Counts what one text may do. Results are noted as they come, so that those so far are there when it stops."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._left = RESULTS_MAX
        self._room = ANSWER_MAX
        self._end = time.monotonic() + TIME_MAX

    async def run(self, statements: Sequence[Statement], names: Names, results: list[Result]) -> None:
        for statement in statements:
            try:
                if isinstance(statement, Loop):
                    await self._loop(statement, names, results)
                else:
                    results.append(await self._command(statement, names))
            except HooklineError as error:
                raise _RefusedError(error, statement) from error

    async def _command(self, command: Command, names: Names) -> Result:
        self._spend()
        bound = names.bind(command, self._datastore.settings.body_max)
        result = await execute(self._datastore, bound)
        # What is there is told, also where it is more than was left.
        self._left -= len(result.get("items", ()))
        self._room -= len(msgspec.json.encode(result))
        names.take(command, result)
        return result

    async def _loop(self, loop: Loop, names: Names, results: list[Result]) -> None:
        members = names.find(loop.over)
        if not isinstance(members, list):
            raise Unfit(loop.over, "expected a list to go through, such as [items]")
        rounds: list[list[Result]] = []
        results.append({"verb": LOOP, "name": loop.name, "rounds": rounds})
        for member in members:
            self._spend()
            rounds.append([])
            await self.run(loop.body, names.within(loop.name, member), rounds[-1])

    def _spend(self) -> None:
        if time.monotonic() > self._end:
            raise Invalid.at("", f"expected a text of commands that are done within {TIME_MAX:.0f} seconds")
        if self._left < 1:
            raise Invalid.at("", f"expected a text of at most {RESULTS_MAX} results, their items and rounds of loops")
        if self._room <= 0:
            raise Invalid.at("", f"expected a text whose results have at most {ANSWER_MAX} bytes")
        self._left -= 1
