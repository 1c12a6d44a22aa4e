"""What waits while a call is in flight leaves together in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import redis.asyncio as aioredis

from conftest import end, wait_until
from hookline import Datastore
from hookline.batcher import Batcher
from hookline.call import Call
from hookline.codec import pack_request
from hookline.connection import Connection
from hookline.errors import OutcomeUnknown, Unavailable
from hookline.group import BYTES_MAX, HALF_MIN, OPERATIONS_MAX, Alone


class Slow:
    """A connection that answers when it is told to: a call that was begun, or one that is sent in a task."""

    def __init__(self, begins: bool) -> None:
        self.begins = begins
        self.refuses = False
        self.calls: list[tuple[str, int, list[bytes]]] = []
        self.answers: list[asyncio.Future[bytes]] = []

    def begin(self, script: str, partition: int, operations: Sequence[bytes], told: Callable[[Any], None]) -> bool:
        if self.refuses:
            raise ValueError("this cannot be packed")
        if self.begins:
            answer = self._sent(script, partition, operations)
            answer.add_done_callback(lambda _: told(wait(answer) if failed(answer) else answer.result()))
        return self.begins

    async def send(self, script: str, partition: int, operations: Sequence[bytes]) -> bytes:
        return await self._sent(script, partition, operations)

    def _sent(self, script: str, partition: int, operations: Sequence[bytes]) -> asyncio.Future[bytes]:
        self.calls.append((script, partition, list(operations)))
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    async def answer(self, place: int | None = None) -> list[bytes]:
        """Let a call succeed, the first that has no answer: each operation's outcome is itself."""
        await wait_until(lambda: not all(answer.done() for answer in self.answers))
        if place is None:
            place = next(place for place, answer in enumerate(self.answers) if not answer.done())
        operations = self.calls[place][2]
        self.answers[place].set_result(pack_request([[operation] for operation in operations]))
        return operations

    async def arrived(self, calls: int) -> None:
        await wait_until(lambda: len(self.calls) >= calls)

    def sizes(self) -> list[int]:
        return [len(operations) for _, _, operations in self.calls]


def packed(call: Call, parent: str) -> bytes:
    operation: bytes = call.request["packed"]
    return operation


def same(_: Call, answer: Any) -> Any:
    return answer


def failed(answer: asyncio.Future[bytes]) -> bool:
    return answer.cancelled() or answer.exception() is not None


async def wait(answer: asyncio.Future[bytes]) -> bytes:
    return await answer


@pytest.fixture(params=["begun", "in a task"])
def slow(request: pytest.FixtureRequest) -> Slow:
    return Slow(request.param == "begun")


@pytest.fixture
def batcher(slow: Slow) -> Batcher:
    return Batcher(cast("Connection", slow))


def submit(
    batcher: Batcher, script: str, partition: int, operation: bytes, gives: int = 0
) -> asyncio.Future[list[list[bytes]]]:
    """Queue an operation by itself."""
    alone = Alone(Call(script, partition, "jobs", "a", {"packed": operation, "limit": gives}), packed, same)
    return cast("asyncio.Future[list[list[bytes]]]", batcher.submit(alone))


async def test_coalesces_while_a_call_is_in_flight(slow: Slow, batcher: Batcher) -> None:
    first = submit(batcher, "patch", 0, b"0")
    await slow.arrived(1)
    rest = [submit(batcher, "patch", 0, b"%d" % n) for n in range(1, 10)]
    assert await slow.answer() == [b"0"]
    assert await first == [[b"0"]]
    await slow.arrived(2)
    await slow.answer()
    assert await asyncio.gather(*rest) == [[[b"%d" % n]] for n in range(1, 10)]
    assert slow.sizes() == [1, 9]


async def test_a_call_no_smaller_than_the_one_ahead_follows_at_once(slow: Slow, batcher: Batcher) -> None:
    waiting = [submit(batcher, "patch", 0, b"first", gives=HALF_MIN + 5)]
    await slow.arrived(1)
    waiting += [submit(batcher, "patch", 0, b"x") for _ in range(HALF_MIN + 3)]
    await asyncio.sleep(0.01)
    assert slow.sizes() == [1]
    waiting.append(submit(batcher, "patch", 0, b"last"))
    await slow.arrived(2)
    waiting += [submit(batcher, "patch", 0, b"x") for _ in range(3 * OPERATIONS_MAX)]
    await asyncio.sleep(0.01)
    assert slow.sizes() == [1, HALF_MIN + 4]
    for calls in range(2, 5):
        await slow.answer()
        await slow.arrived(calls + 1)
    await slow.answer()
    await slow.answer()
    await asyncio.gather(*waiting)
    assert slow.sizes() == [1, HALF_MIN + 4, 100, 100, 100]


async def test_a_few_wait_for_the_call_ahead_though_it_is_smaller(slow: Slow, batcher: Batcher) -> None:
    first = submit(batcher, "patch", 0, b"first")
    await slow.arrived(1)
    rest = [submit(batcher, "patch", 0, b"x") for _ in range(HALF_MIN - 1)]
    await asyncio.sleep(0.01)
    assert slow.sizes() == [1]
    await slow.answer()
    await slow.answer()
    await asyncio.gather(first, *rest)
    assert slow.sizes() == [1, HALF_MIN - 1]


async def test_of_many_that_find_no_call_ahead_each_half_is_one(slow: Slow, batcher: Batcher) -> None:
    waiting = [submit(batcher, "patch", 0, b"x") for _ in range(71)]
    await slow.arrived(2)
    assert slow.sizes() == [36, 35]
    await slow.answer()
    waiting += [submit(batcher, "patch", 0, b"x") for _ in range(36)]
    await slow.arrived(3)
    assert slow.sizes() == [36, 35, 36]
    await slow.answer()
    await slow.answer()
    await asyncio.gather(*waiting)


async def test_alone_it_leaves_at_once(slow: Slow, batcher: Batcher) -> None:
    for n in range(3):
        only = submit(batcher, "patch", 0, b"%d" % n)
        await slow.arrived(n + 1)
        await slow.answer()
        await only
    assert slow.sizes() == [1, 1, 1]


async def test_the_next_call_goes_out_before_outcomes_are_given(slow: Slow, batcher: Batcher) -> None:
    calls_by_then: list[int] = []
    first = submit(batcher, "patch", 0, b"0")
    first.add_done_callback(lambda _: calls_by_then.append(len(slow.calls)))
    await slow.arrived(1)
    second = submit(batcher, "patch", 0, b"1")
    await slow.answer()
    assert await first == [[b"0"]]
    await slow.answer()
    assert (await second, calls_by_then) == ([[b"1"]], [2])


async def test_an_answer_that_cannot_be_read_fails_what_it_is_of(slow: Slow, batcher: Batcher) -> None:
    waiting = [submit(batcher, "patch", 0, b"0"), submit(batcher, "patch", 0, b"1")]
    await slow.arrived(1)
    slow.answers[0].set_result(pack_request([[b"ok"]]))
    given, failed = await asyncio.gather(*waiting, return_exceptions=True)
    assert (given, type(failed)) == ([[b"ok"]], ValueError)


async def test_scripts_and_partitions_do_not_wait_for_each_other(slow: Slow, batcher: Batcher) -> None:
    lanes = [("patch", 0), ("patch", 1), ("create", 0)]
    waiting = [submit(batcher, script, partition, script.encode()) for script, partition in lanes]
    await slow.arrived(3)
    assert [(script, partition) for script, partition, _ in slow.calls] == lanes
    for place in (2, 0, 1):
        await slow.answer(place)
    assert await asyncio.gather(*waiting) == [[[b"patch"]], [[b"patch"]], [[b"create"]]]


@pytest.mark.parametrize(
    ("operations", "sizes"),
    [
        ([1] * (2 * HALF_MIN - 1), [63]),
        ([1] * OPERATIONS_MAX, [50, 50]),
        ([1] * 250, [100, 100, 50]),
        ([BYTES_MAX // 4] * 9, [4, 4, 1]),
        ([BYTES_MAX // 2, BYTES_MAX // 2 + 1, 1], [1, 2]),
        ([BYTES_MAX * 4, 1, 1], [1, 2]),
        ([1, BYTES_MAX * 4, BYTES_MAX + 1, 1], [1, 1, 1, 1]),
    ],
)
async def test_limits_of_one_call(slow: Slow, batcher: Batcher, operations: list[int], sizes: list[int]) -> None:
    waiting = [submit(batcher, "create", 0, b"x" * size) for size in operations]
    for calls in range(1, len(sizes) + 1):
        await slow.arrived(calls)
        await slow.answer()
    assert [len(outcome[0][0]) for outcome in await asyncio.gather(*waiting)] == operations
    assert slow.sizes() == sizes


@pytest.mark.parametrize(
    ("gives", "sizes"),
    [
        ([1] * 250, [100, 100, 50]),
        ([60, 40, 1, 99, 100], [2, 2, 1]),
        ([0] * 90 + [10, 1] + [0], [51, 42]),
        ([60, 0, 40, 0], [1, 3]),
        ([60, 0, 40, 0, 99], [2, 2, 1]),
    ],
)
async def test_a_claim_counts_as_what_it_may_give(
    slow: Slow, batcher: Batcher, gives: list[int], sizes: list[int]
) -> None:
    waiting = [submit(batcher, "settle", 0, b"x", number) for number in gives]
    for calls in range(1, len(sizes) + 1):
        await slow.arrived(calls)
        await slow.answer()
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    assert slow.sizes() == sizes


async def test_an_error_reaches_every_caller_of_its_call(slow: Slow, batcher: Batcher) -> None:
    doomed = [submit(batcher, "patch", 0, b"a") for _ in range(5)]
    await slow.arrived(1)
    spared = submit(batcher, "patch", 0, b"b")
    error = Unavailable("gone")
    slow.answers[0].set_exception(error)
    assert await asyncio.gather(*doomed, return_exceptions=True) == [error] * 5
    await slow.arrived(2)
    await slow.answer()
    assert await spared == [[b"b"]]


async def test_what_cannot_be_packed_fails_alone(slow: Slow, batcher: Batcher) -> None:
    def odd() -> Alone:
        return Alone(Call("patch", 0, "jobs", "a", {}), packed, same)

    with pytest.raises(KeyError, match="packed"):
        await batcher.submit(odd())
    doomed, spared = batcher.submit(odd()), submit(batcher, "patch", 0, b"x")
    with pytest.raises(KeyError, match="packed"):
        await doomed
    await slow.answer()
    assert await spared == [[b"x"]]
    await batcher.close()


async def test_what_cannot_be_read_fails_alone(slow: Slow, batcher: Batcher) -> None:
    def unreadable(call: Call, answer: Any) -> Any:
        raise KeyError(call.sort_field)

    call = Call("patch", 0, "jobs", "a", {"packed": b"odd"})
    doomed, spared = batcher.submit(Alone(call, packed, unreadable)), submit(batcher, "patch", 0, b"x")
    assert await slow.answer() == [b"odd", b"x"]
    with pytest.raises(KeyError, match="a"):
        await doomed
    assert await spared == [[b"x"]]


@pytest.mark.parametrize("ends", ["before it is sent", "in flight"])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_caller_cancels_nothing(slow: Slow, batcher: Batcher, ends: str, fails: bool) -> None:
    async def caller(operation: bytes) -> list[list[bytes]]:
        return await submit(batcher, "patch", 0, operation)

    leaves, stays = (asyncio.create_task(caller(name)) for name in (b"leaves", b"stays"))
    await (slow.arrived(1) if ends == "in flight" else asyncio.sleep(0))
    await end(leaves)
    await slow.arrived(1)
    assert slow.calls[0][2] == [b"leaves", b"stays"]
    if fails:
        slow.answers[0].set_exception(Unavailable("gone"))
        with pytest.raises(Unavailable):
            await stays
    else:
        await slow.answer()
        assert await stays == [[b"stays"]]


@pytest.mark.parametrize("size", [10, 250])
async def test_a_cancelled_batch_is_carried_out(datastore: Datastore, size: int) -> None:
    creates = [datastore.calls.create("jobs", f"{n:03}") for n in range(size)]
    running = asyncio.create_task(datastore.run(creates))
    await asyncio.sleep(0)
    await end(running)

    async def all_there() -> bool:
        return (await datastore.count("jobs")).count == size

    await wait_until(all_there)


async def test_a_cancelled_exchange_is_carried_out(datastore: Datastore) -> None:
    await datastore.run([datastore.calls.create("jobs", metadata={"status": "not_started"}) for _ in range(250)])
    claimed = await datastore.claim("jobs", worker_id="w", limit=250)
    done = [datastore.calls.complete("jobs", item.sort_field, item.token or "") for item in claimed.items]
    exchanging = asyncio.create_task(datastore.exchange(done, "jobs", worker_id="w"))
    await asyncio.sleep(0)
    await end(exchanging)

    async def all_completed() -> bool:
        return (await datastore.count("jobs", where={"status": "completed"})).count == 250

    await wait_until(all_completed)


async def test_a_call_that_is_broken_off_ends(slow: Slow, batcher: Batcher) -> None:
    """As the tasks of a loop are that comes to its end."""
    first, second = submit(batcher, "patch", 0, b"a"), submit(batcher, "create", 0, b"b")
    await slow.arrived(2)
    later = submit(batcher, "patch", 0, b"c")
    slow.answers[0].cancel()
    with pytest.raises(OutcomeUnknown):
        await first
    await slow.answer()
    await slow.answer()
    async with asyncio.timeout(5):
        assert (await second, await later) == ([[b"b"]], [[b"c"]])
        await batcher.close()


async def test_calls_that_cannot_begin_fail_one_by_one(slow: Slow, batcher: Batcher) -> None:
    first = submit(batcher, "patch", 0, b"a")
    await slow.arrived(1)
    slow.refuses = True
    doomed = [submit(batcher, "patch", 0, b"x", OPERATIONS_MAX) for _ in range(2000)]
    await slow.answer()
    assert await first == [[b"a"]]
    assert {type(each) for each in await asyncio.gather(*doomed, return_exceptions=True)} == {ValueError}
    await batcher.close()


async def test_close_waits_for_what_was_submitted(slow: Slow, batcher: Batcher) -> None:
    waiting = [submit(batcher, "create", 0, b"x") for _ in range(150)]
    await slow.arrived(1)
    closing = asyncio.create_task(batcher.close())
    await slow.answer()
    await slow.arrived(2)
    assert not closing.done()
    await slow.answer()
    await closing
    assert all(outcome.done() for outcome in waiting)


async def fcalls(raw: aioredis.Redis, work: Callable[[], Any]) -> tuple[int, Any]:
    """How many script calls the work takes, and what it gives."""
    await raw.config_resetstat()
    done = await work()
    stats = await raw.info("commandstats")
    return stats.get("cmdstat_fcall", {"calls": 0})["calls"], done


async def test_script_calls_of_the_store(datastore: Datastore, raw: aioredis.Redis) -> None:
    creates = [datastore.calls.create("jobs", f"{n:03}", metadata={"status": "not_started"}) for n in range(250)]
    calls, outcomes = await fcalls(raw, lambda: datastore.run(creates))
    assert calls == 3
    assert [outcome.item.sort_field for outcome in outcomes] == [f"{n:03}" for n in range(250)]

    calls, claimed = await fcalls(raw, lambda: datastore.claim("jobs", worker_id="w", limit=250))
    assert (calls, len(claimed.items)) == (3, 250)

    done = [datastore.calls.complete("jobs", item.sort_field, item.token) for item in claimed.items[:50]]
    calls, _ = await fcalls(raw, lambda: datastore.exchange(done, "jobs", worker_id="w", limit=50))
    assert calls == 1

    calls, _ = await fcalls(raw, lambda: asyncio.gather(*(datastore.delete("jobs", f"{n:03}") for n in range(80))))
    assert calls == 2
    calls, _ = await fcalls(raw, lambda: datastore.get("jobs", "100"))
    assert calls == 1


async def test_operations_too_large_for_one_call_together(datastore: Datastore, raw: aioredis.Redis) -> None:
    creates = [datastore.calls.create("jobs", f"{n}", content="x" * (BYTES_MAX // 3)) for n in range(6)]
    calls, outcomes = await fcalls(raw, lambda: datastore.run(creates))
    assert calls == 3
    assert all(outcome.ok for outcome in outcomes)
