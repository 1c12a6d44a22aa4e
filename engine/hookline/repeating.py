"""Requests that may come again: a datastore under an idempotency key."""

from __future__ import annotations

import copy
from typing import Any, Self

from hookline.call import Call
from hookline.errors import REFUSALS
from hookline.once import Once
from hookline.reader import Reader


class Repeating(Reader):
    """What a datastore remembers of a request in progress. ``marks`` are there on the view that :meth:`once` gives."""

    marks: Once | None = None

    def once(
        self,
        idempotency_key: str,
        *,
        caller: str = "",
        body: bytes | None = None,
        keep: float | None = None,
        everywhere: bool = False,
    ) -> Self:
        """The same datastore, for one request that may come again: each of its writes takes effect once.

        Who makes the same writes through it in the same order under the same key gets the answers of the first time,
        for as long as the setting ``idempotency_keep`` says. What was refused is tried again. Settings of a key are
        beside it: they may be set twice. A claim looks at one partition, and of a deleted item nothing is kept.

        Args:
            idempotency_key: what the repeats of a request have in common, up to 255 characters.
            caller: whose key it is.
            body: what the request asks for: under the same key something else is refused. Without it each write is held
                against the one in its place.
            keep: for how many seconds, in place of the setting.
            everywhere: claims look at all partitions nonetheless, and leave a record in each; and a repeat may ask for
                something else.

        Raises:
            Invalid: the key is of another form.
            IdempotencyKeyReused: by its verbs, the key came with another request before.
        """
        view = copy.copy(self)
        keep_ms = round((self.settings.idempotency_keep if keep is None else keep) * 1000)
        secret, partitions = self.connection.meta.cursor_secret, self.calls.partitions
        view.marks = Once(secret, caller, idempotency_key, body, keep_ms, partitions, everywhere)
        return view

    def marked(self, call: Call, ahead: int) -> Call:
        """The call as the write so many later, for the :meth:`unmarked` datastore to run: so nothing is counted."""
        return self.marks.mark(call, ahead) if self.marks else call

    def unmarked(self) -> Self:
        """The same datastore, for writes that may be made twice, or are :meth:`marked`."""
        if self.marks is None:
            return self
        view = copy.copy(self)
        view.marks = None
        return view

    async def begin(self) -> Any:
        """Note what the request asks for -> what :meth:`finish` was told that it was answered, or None.

        Raises:
            IdempotencyKeyReused: the key came with another request before.
            Corrupt, Unavailable, OutcomeUnknown
        """
        if self.marks is None or self.marks.begun:
            return None
        self.marks.begun = True
        return await self._note(self.marks, {})

    async def moment(self) -> int:
        """The time in ms since 1970, for who names something by it; in a repeat what it was the first time.

        No two of the operations of a request have the same.

        Raises:
            IdempotencyKeyReused: the key came with another request before.
            Corrupt, Unavailable, OutcomeUnknown
        """
        if self.marks is None:
            return await self.connection.now_ms()
        if self.marks.came_ms is None:
            await self._note(self.marks, {})
        return (self.marks.came_ms or 0) + self.marks.place

    async def finish(self, answer: bytes) -> Any:
        """Keep what the request was answered as a whole, unless a repeat was sooner -> what is kept.

        :meth:`begin` of its repeats gives it.

        Raises:
            Corrupt, Unavailable, OutcomeUnknown
        """
        return answer if self.marks is None else await self._note(self.marks, {"answer": answer})

    def partition_ahead(self, ahead: int) -> int | None:
        """Where an item without a sortField has to be created as one of many, so that a repeat finds it."""
        return self.marks.partition(ahead) if self.marks else None

    async def _begin_if(self, *, several: bool) -> None:
        """Note what the request asks for where the records of its writes alone could not tell another one."""
        if self.marks and self.marks.body is not None and (several or self.calls.partitions > 1):
            await self.begin()

    async def _note(self, marks: Once, more: dict[str, Any]) -> Any:
        word, answer, marks.came_ms = await self.connection.change(
            "once", marks.whole_partition(), marks.whole() | more
        )
        if word != b"ok":
            raise REFUSALS[word.decode()]
        return answer or None
