"""Workers: what becomes of jobs whose handlers return, raise, take too long, or lose their lock."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from functools import wraps as wraps_by
from pathlib import Path
from typing import Any, NoReturn

import pytest

from conftest import end, wait_until
from handlers import (
    cancel_told,
    end_a_program,
    hang,
    kill_itself,
    leave,
    pid,
    raise_here,
    raise_told,
    release_until_tomorrow,
    retry_told,
    say,
    tell_in_many_threads,
    tell_of_another_job_only,
    tell_once_it_has_returned,
    tell_what_cannot_be_sent,
)
from hookline import (
    Cancel,
    Client,
    Datastore,
    EmbeddedStore,
    Item,
    Job,
    Release,
    Retry,
    SecretBox,
    Settings,
    SyncClient,
    Worker,
)
from hookline.errors import Invalid, ReservedKey
from hookline.holding import as_text
from hookline.item import FIELDS_MAX
from hookline.source import Source
from hookline.worker import WAIT
from jobs import WAITING, fill, let_timers_come_early, statuses


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[Worker]:
    """Let it work meanwhile."""
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait_for(running, 30)


async def ended(datastore: Datastore, sort_field: str = "a") -> Item:
    """The item once it has ended."""
    item = await datastore.wait_for("jobs", sort_field, timeout=20)
    assert item, (await datastore.get("jobs", sort_field)).metadata
    return item


async def outcome_of(datastore: Datastore, source: Source, handler: Callable[[Job], Any], **options: Any) -> Item:
    """What becomes of one job, of one attempt, with this handler."""
    await datastore.create("jobs", "a", content={"n": 1}, metadata={"status": "not_started", "max_attempts": 1})
    worker = Worker(source, "jobs")
    worker.handles(**options)(handler)
    async with working(worker):
        return await ended(datastore)


async def test_a_result_is_kept(datastore: Datastore, source: Source) -> None:
    async def handler(job: Job) -> dict[str, Any]:
        assert (job.key, job.sort_field, job.content, job.attempt) == ("jobs", "a", {"n": 1}, 1)
        assert job.metadata["status"] == "started"
        assert job.deadline
        assert job.deadline.timestamp() > time.time() + 30
        return {"rows": 3}

    item = await outcome_of(datastore, source, handler)
    assert (item.status, item.metadata["result"]) == ("completed", {"rows": 3})


async def test_no_result_leaves_no_field(datastore: Datastore, source: Source) -> None:
    async def handler(_: Job) -> None: ...

    item = await outcome_of(datastore, source, handler)
    assert item.status == "completed"
    assert "result" not in item.metadata


async def test_plain_functions_run_in_threads_at_the_same_time(datastore: Datastore, source: Source) -> None:
    together = threading.Barrier(4)
    worker = Worker(source, "jobs", concurrency=4)

    @worker.handles()
    def handler(job: Job) -> str:
        together.wait(20)
        job.progress(100)
        return threading.current_thread().name

    made = await fill(datastore, 4)
    async with working(worker):
        items = [await ended(datastore, name) for name in made]
    assert {item.metadata["result"] for item in items} == {"hookline-handler"}
    assert all(item.metadata["progress"] == 100 for item in items)


async def test_processes(datastore: Datastore) -> None:
    item = await outcome_of(datastore, datastore, pid, process=True)
    assert item.metadata["result"]["content"] == {"n": 1}
    assert item.metadata["result"]["pid"] != os.getpid()
    assert item.metadata["progress"] == "begun"


@pytest.mark.parametrize(
    ("handler", "timeout", "error"),
    [
        (kill_itself, None, "RuntimeError: the handler's process ended with exit code -9"),
        (hang, 2, "TimedOut: took longer than 2 s"),
        (raise_here, None, "not yet"),
        (raise_told, None, "RuntimeError: Told: 7: the disk is full"),
        (leave, None, "RuntimeError: SystemExit: 3"),
    ],
)
async def test_processes_that_fail(
    datastore: Datastore, handler: Callable[[Job], Any], timeout: float | None, error: str
) -> None:
    item = await outcome_of(datastore, datastore, handler, process=True, timeout=timeout)
    assert (item.status, item.metadata["last_error"]) == ("failed", error)


async def test_a_process_that_died_while_idle_costs_no_attempt(datastore: Datastore) -> None:
    worker = Worker(datastore, "jobs")
    worker.handles(process=True)(pid)
    async with working(worker):
        await datastore.create("jobs", "a", metadata={**WAITING, "max_attempts": 1})
        child = (await ended(datastore)).metadata["result"]["pid"]
        await wait_until(lambda: worker.in_flight == 0)
        os.kill(child, signal.SIGKILL)
        await wait_until(lambda: Path(f"/proc/{child}/stat").read_text().rsplit(")")[1].split()[0] == "Z")
        await datastore.create("jobs", "b", metadata={**WAITING, "max_attempts": 1})
        item = await ended(datastore, "b")
    gc.collect()  # Python complains of a buffer that is left in a circle, from 3.13 on, or crashes
    assert item.status == "completed"
    assert item.metadata["result"]["pid"] != child


async def test_the_log_shows_where_another_process_failed(
    datastore: Datastore, caplog: pytest.LogCaptureFixture
) -> None:
    await outcome_of(datastore, datastore, raise_told, process=True)
    assert 'raise Told("7", "the disk is full")' in caplog.text


@pytest.mark.parametrize(
    ("handler", "status", "error", "seconds"),
    [
        (retry_told, "scheduled", "Told: 7: the disk is full", 3600),
        (cancel_told, "cancelled", "Told: 7: the disk is full", None),
        (release_until_tomorrow, "scheduled", None, 86_400),
    ],
)
async def test_what_a_process_says_of_its_job(
    datastore: Datastore, handler: Callable[[Job], Any], status: str, error: str | None, seconds: float | None
) -> None:
    """Also where the error itself cannot be sent from there."""
    await datastore.create("jobs", "a", metadata=WAITING)
    worker = Worker(datastore, "jobs")
    worker.handles(process=True)(handler)
    async with working(worker):
        item = await datastore.wait_for("jobs", "a", until={"status": status}, timeout=20)
    assert item
    assert item.metadata.get("last_error") == error
    if seconds:
        due = datetime.fromisoformat(item.metadata["scheduled_at"]).timestamp()
        assert seconds - 60 < due - time.time() <= seconds + 1


async def test_programs_that_a_process_starts_can_be_ended(datastore: Datastore) -> None:
    item = await outcome_of(datastore, datastore, end_a_program, process=True)
    assert item.metadata["result"] == -signal.SIGTERM


async def test_progress_of_threads_in_a_process(datastore: Datastore) -> None:
    """It comes one after the other, and that of a job that has returned is not that of the next."""
    worker = Worker(datastore, "jobs", concurrency=1)
    worker.handles(where={"n": 0}, process=True)(tell_once_it_has_returned)
    worker.handles(where={"n": 1}, process=True)(tell_of_another_job_only)
    worker.handles(where={"n": 2}, process=True)(tell_in_many_threads)
    async with working(worker):
        for number in range(3):
            await datastore.create("jobs", f"{number}", metadata={**WAITING, "n": number, "max_attempts": 1})
            await ended(datastore, f"{number}")
    items = [await datastore.get("jobs", f"{number}") for number in range(3)]
    assert [item.metadata.get("last_error") for item in items] == [None] * 3
    assert [item.metadata.get("result") for item in items] == [None, None, 7]
    assert [item.metadata.get("progress") for item in items[:2]] == [None, None]
    assert set(items[2].metadata["progress"]) == {"number", "of"}


async def test_the_log_of_a_process(
    datastore: Datastore, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.WARNING, logger="httpx")
    await outcome_of(datastore, datastore, say, process=True)
    said = capfd.readouterr().err
    assert "INFO handlers: said in a process\n" in said
    assert "a request" not in said


async def raise_value_error(_: Job) -> None:
    raise ValueError("no such report")


async def raise_cancel(_: Job) -> None:
    raise Cancel("a duplicate")


async def return_no_json(_: Job) -> object:
    return {"it": object()}


async def raise_text_of_no_use(_: Job) -> None:
    raise ValueError("?\0" + "x" * 10_000)


async def cancel_itself(_: Job) -> None:
    raise asyncio.CancelledError


async def sleep(_: Job) -> None:
    await asyncio.sleep(60)


async def own_timeout(_: Job) -> None:
    raise TimeoutError("its own")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


async def raise_unspeakable(_: Job) -> None:
    raise Unspeakable


async def retry_by_an_error(_: Job) -> None:
    raise Retry(ValueError("no paper"))


async def retry_by_nothing(_: Job) -> None:
    raise Retry(None)  # type: ignore[arg-type]  # it is what the test is about


async def cancel_by_an_error(_: Job) -> None:
    raise Cancel(ValueError("no paper"))


async def release_for_an_odd_time(_: Job) -> None:
    raise Release(object())  # type: ignore[arg-type]  # it is what the test is about


async def exit_on_the_loop(_: Job) -> None:
    sys.exit("enough")


def exit_in_a_thread(_: Job) -> None:
    sys.exit(0)


@pytest.mark.parametrize(
    ("handler", "status", "error"),
    [
        (raise_unspeakable, "failed", "Unspeakable"),
        (retry_by_an_error, "failed", "ValueError: no paper"),
        (retry_by_nothing, "failed", "failed"),
        (cancel_by_an_error, "cancelled", "ValueError: no paper"),
        (release_for_an_odd_time, "failed", "cannot be kept: /delay: expected seconds as a number"),
        (exit_on_the_loop, "failed", "RuntimeError: SystemExit: enough"),
        (exit_in_a_thread, "failed", "RuntimeError: SystemExit: 0"),
        (raise_value_error, "failed", "ValueError: no such report"),
        (raise_cancel, "cancelled", "a duplicate"),
        (return_no_json, "failed", "cannot be kept: /metadata/result/it: expected a JSON value, not object"),
        (raise_text_of_no_use, "failed", ("ValueError: ?" + "x" * 10_000)[:8192]),
        (cancel_itself, "failed", "CancelledError"),
        (sleep, "failed", "TimedOut: took longer than 1 s"),
        (own_timeout, "failed", "TimeoutError: its own"),
    ],
)
async def test_failures(
    datastore: Datastore, source: Source, handler: Callable[[Job], Any], status: str, error: str
) -> None:
    item = await outcome_of(datastore, source, handler, timeout=1)
    assert (item.status, item.metadata["last_error"][: len(error)]) == (status, error)


async def returns(job: Job) -> str:
    return job.sort_field


async def tell(job: Job) -> None:
    job.progress(1)


async def tell_and_return(job: Job) -> str:
    job.progress(1)
    return job.sort_field


async def tell_and_cancel(job: Job) -> None:
    job.progress(1)
    raise Cancel("a duplicate")


async def tell_and_fail(job: Job) -> None:
    job.progress(1)
    raise ValueError("no such report")


@pytest.mark.parametrize(
    ("handler", "status", "error"),
    [
        (returns, "failed", "cannot be kept: the item would have more than 1,024 metadata fields"),
        (tell, "completed", None),
        (tell_and_return, "failed", "cannot be kept: the item would have more than 1,024 metadata fields"),
        (tell_and_cancel, "cancelled", "a duplicate"),
        (tell_and_fail, "failed", "ValueError: no such report"),
    ],
)
async def test_a_job_ends_that_has_as_many_fields_as_it_may(
    datastore: Datastore, source: Source, handler: Callable[[Job], Any], status: str, error: str | None
) -> None:
    await datastore.create("jobs", "a", metadata={"max_attempts": 1})
    for first in range(0, FIELDS_MAX, 128):
        await datastore.update("jobs", "a", metadata={f"f{first + n}": n for n in range(128)})
    await datastore.update("jobs", "a", metadata={"status": "not_started"})
    worker = Worker(source, "jobs")
    worker.handles()(handler)
    async with working(worker):
        item = await ended(datastore)
    told = item.metadata.get("last_error")
    assert (item.status, told and told[: len(error or "")]) == (status, error)
    assert not {"result", "progress"} & set(item.metadata)


async def test_a_result_too_large_to_be_sent_fails_its_job_whatever_ends_with_it(
    datastore: Datastore, client: Client
) -> None:
    for name in "ab":
        await datastore.create("jobs", name, metadata={**WAITING, "max_attempts": 1})
    worker, gate = Worker(client, "jobs"), asyncio.Event()

    @worker.handles()
    async def handle(job: Job) -> Any:
        await gate.wait()
        return 1 if job.sort_field == "a" else "x" * 1_100_000

    async with working(worker):
        await wait_until(lambda: worker.in_flight == 2)
        gate.set()
        assert (await ended(datastore, "a")).metadata["result"] == 1
        large = await ended(datastore, "b")
    told = "cannot be kept: /: expected a body of at most"
    assert (large.status, large.metadata["last_error"][: len(told)]) == ("failed", told)


def wraps(function: Callable[[Job], Any]) -> Callable[[Job], Any]:
    """As a decorator may that knows nothing of async."""

    @wraps_by(function)
    def wrapper(job: Job) -> Any:
        return function(job)

    return wrapper


class Called:
    async def __call__(self, job: Job) -> str:
        return job.sort_field


@pytest.mark.parametrize("handler", [wraps(returns), partial(returns), Called()], ids=["wrapped", "partial", "object"])
async def test_handlers_of_all_kinds(datastore: Datastore, source: Source, handler: Callable[[Job], Any]) -> None:
    item = await outcome_of(datastore, source, handler)
    assert (item.status, item.metadata["result"]) == ("completed", "a")


def test_an_error_is_told_as_text_that_can_be_kept() -> None:
    assert as_text("\ud800\0a") == "?a"
    assert as_text("") == "failed"


async def test_retry_and_release(datastore: Datastore, source: Source) -> None:
    """A retry counts as an attempt, a release does not."""
    worker, seen = Worker(source, "jobs"), list[int]()

    @worker.handles()
    async def handler(job: Job) -> int:
        seen.append(job.attempt)
        if len(seen) == 1:
            raise Retry(after="10ms")
        if len(seen) == 2:
            raise Release
        if len(seen) == 3:
            raise Release(delay="10ms")
        return job.attempt

    await datastore.create("jobs", "a", metadata=WAITING)
    async with working(worker):
        item = await ended(datastore)
    assert seen == [1, 2, 2, 2]
    assert (item.metadata["failed_attempts"], item.metadata["released_attempts"]) == (1, 2)


async def test_progress_is_told_while_the_handler_runs(datastore: Datastore, source: Source) -> None:
    worker, go_on = Worker(source, "jobs"), asyncio.Event()

    @worker.handles()
    async def handler(job: Job) -> None:
        job.progress({"not": "kept", "since": {1, 2}})
        await asyncio.sleep(0.3)
        job.progress(1)
        job.progress({"done": 2, "of": 3})
        await go_on.wait()

    await datastore.create("jobs", "a", metadata=WAITING)
    async with working(worker):
        until = {"progress.done": 2, "status": "started"}
        assert await datastore.wait_for("jobs", "a", until=until, timeout=20)
        go_on.set()
        item = await ended(datastore)
    assert item.metadata["progress"] == {"done": 2, "of": 3}


async def too_large(job: Job) -> str:
    job.progress("x" * 2_000_000)  # a server takes bodies of 1 MiB
    return "the result"


async def no_json(job: Job) -> str:
    job.progress({"eta": Decimal("1.5")})
    return "the result"


async def no_json_and_cancel(job: Job) -> None:
    job.progress({"eta": Decimal("1.5")})
    raise Cancel("a duplicate")


@pytest.mark.parametrize(
    ("handler", "process", "told"),
    [
        (too_large, False, "completed the result None"),
        (no_json, False, "completed the result None"),
        (tell_what_cannot_be_sent, True, "completed the result None"),
        (no_json_and_cancel, False, "cancelled None a duplicate"),
    ],
)
async def test_progress_that_cannot_be_kept_is_dropped(
    datastore: Datastore, source: Source, handler: Callable[[Job], Any], process: bool, told: str
) -> None:
    item = await outcome_of(datastore, source, handler, process=process)
    assert f"{item.status} {item.metadata.get('result')} {item.metadata.get('last_error')}" == told
    assert "progress" not in item.metadata or (handler is too_large and isinstance(source, Datastore))


async def test_the_last_progress_counts(datastore: Datastore, source: Source) -> None:
    """Also of an object that goes on changing, and of a handler that does not come to its end."""
    worker = Worker(source, "jobs")
    seen: list[Any] = []

    @worker.handles()
    async def handler(job: Job) -> None:
        seen.append(job.metadata.get("progress"))
        state = {"done": 0}
        for done in (1, 2, 3):
            state["done"] = done
            job.progress(state)
            await asyncio.sleep(0.15)
        job.progress({"done": 4})
        if job.attempt == 1:
            raise Retry(after=0)
        if job.attempt == 2:
            raise ValueError
        raise Cancel

    await datastore.create("jobs", "a", metadata={**WAITING, "max_attempts": 3})
    await datastore.configure("jobs", backoff="1ms")
    async with working(worker):
        item = await ended(datastore)
    assert seen == [None, {"done": 4}, {"done": 4}]
    assert (item.status, item.metadata["progress"]) == ("cancelled", {"done": 4})


async def test_without_what_prolongs_its_locks_a_worker_ends(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody has thought of must not leave it running jobs that others run as well."""
    worker = Worker(datastore, "jobs", lock_for="600ms", grace=1)
    worker.handles()(sleep)

    async def broken(_: object) -> NoReturn:
        raise KeyError("extend")

    monkeypatch.setattr(datastore, "settle", broken)
    await datastore.create("jobs", "a", metadata=WAITING)
    with pytest.raises(KeyError, match="extend"):
        await asyncio.wait_for(worker.run(), 30)


async def test_more_handlers_than_connections(datastore: Datastore, url: str) -> None:
    """Claims that wait hold nothing up: neither those of other handlers, nor what ends jobs."""
    async with Client(url, connections=1) as client:
        worker = Worker(client, "jobs", concurrency=16)
        for number in range(8):

            @worker.handles(where={"n": number})
            async def handler(job: Job) -> int:
                return int(job.metadata["n"])

        async with working(worker):
            await wait_until(lambda: all(lane.waiting for lane in worker.lanes), seconds=60)
            for number in range(8):
                await datastore.create("jobs", f"{number}", metadata={**WAITING, "n": number})
            async with asyncio.timeout(WAIT - 5):  # before the claims that wait come back by themselves
                results = [(await ended(datastore, f"{number}")).metadata["result"] for number in range(8)]
    assert results == [*range(8)]


async def test_locks_are_prolonged(datastore: Datastore, source: Source) -> None:
    """For as long as the handler runs, which here is several times the lock."""
    worker = Worker(source, "jobs", lock_for="600ms")

    @worker.handles()
    async def handler(job: Job) -> bool:
        before = job.deadline
        await asyncio.sleep(2.5)
        return bool(before and job.deadline and before < job.deadline)

    await datastore.create("jobs", "a", metadata=WAITING)
    async with working(worker):
        item = await ended(datastore)
    assert (item.metadata["attempts"], item.metadata["result"]) == (1, True)


@pytest.mark.parametrize("change", [{"status": "cancelled"}, {"status": "not_started", "moved": True}])
async def test_who_has_lost_the_lock_is_cancelled(datastore: Datastore, source: Source, change: dict[str, Any]) -> None:
    worker, begun, was_cancelled = Worker(source, "jobs", lock_for="600ms"), asyncio.Event(), asyncio.Event()

    @worker.handles(where={"moved": {"exists": False}})
    async def handler(job: Job) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            assert job.cancelled
            was_cancelled.set()
            raise

    await datastore.create("jobs", "a", metadata=WAITING)
    async with working(worker):
        await asyncio.wait_for(begun.wait(), 20)
        await datastore.update("jobs", "a", metadata=change)
        await asyncio.wait_for(was_cancelled.wait(), 20)
        await wait_until(lambda: worker.in_flight == 0)
    item = await datastore.get("jobs", "a")
    assert item.status == change["status"]
    assert "last_error" not in item.metadata


async def test_a_thread_can_see_that_it_lost_the_job(datastore: Datastore, source: Source) -> None:
    worker, begun, saw = Worker(source, "jobs", lock_for="600ms"), threading.Event(), threading.Event()

    @worker.handles()
    def handler(job: Job) -> None:
        begun.set()
        while not job.cancelled:
            threading.Event().wait(0.02)
        saw.set()

    await datastore.create("jobs", "a", metadata=WAITING)
    async with working(worker):
        await wait_until(begun.is_set)
        await datastore.update("jobs", "a", metadata={"status": "cancelled"})
        await wait_until(saw.is_set)


async def test_handlers_have_their_own_jobs(datastore: Datastore, source: Source) -> None:
    """More handlers than slots: each gets its turn; what none of them handles stays."""
    worker = Worker(source, "jobs", concurrency=1)

    def handler_of(kind: str) -> Callable[[Job], Awaitable[str]]:
        async def handler(_: Job) -> str:
            return kind

        return worker.handles(where={"type": kind})(handler)

    for kind in ("a", "b", "c"):
        handler_of(kind)
    async with working(worker):
        for number, kind in enumerate("abcabcx"):
            await datastore.create("jobs", f"{number}", metadata={"status": "not_started", "type": kind})
        items = [await ended(datastore, f"{number}") for number in range(6)]
    assert [item.metadata["result"] for item in items] == list("abcabc")
    assert (await datastore.get("jobs", "6")).status == "not_started"


async def test_no_more_than_its_concurrency(datastore: Datastore, source: Source) -> None:
    worker, running, most = Worker(source, "jobs", concurrency=7), 0, 0

    @worker.handles()
    async def handler(_: Job) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    await fill(datastore, 200)
    async with working(worker):
        await wait_until(lambda: _count(datastore, "completed", 200), seconds=30)
    assert most == 7
    assert sum(row["attempts"] for row in await _metadata(datastore)) == 200


async def test_stopping_finishes_what_runs(datastore: Datastore, source: Source) -> None:
    worker, begun = Worker(source, "jobs", concurrency=2), asyncio.Event()

    @worker.handles()
    async def handler(_: Job) -> str:
        begun.set()
        await asyncio.sleep(0.3)
        return "done"

    await fill(datastore, 5)
    async with working(worker):
        await asyncio.wait_for(begun.wait(), 20)
    assert await statuses(datastore) == {"": 5, "completed": 2, "not_started": 3}


async def test_stopping_gives_back_what_does_not_end(datastore: Datastore, source: Source) -> None:
    """One lets itself be cancelled, one doesn't, one is a thread."""
    worker, begun = Worker(source, "jobs", concurrency=3, grace=1.5), list[str]()
    let_go = asyncio.Event()

    @worker.handles(where={"n": 0})
    async def mild(job: Job) -> None:
        begun.append(job.sort_field)
        await asyncio.sleep(60)

    @worker.handles(where={"n": 1})
    async def stubborn(job: Job) -> None:
        begun.append(job.sort_field)
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    @worker.handles(where={"n": 2})
    def thread(job: Job) -> None:
        begun.append(job.sort_field)
        hang(job)

    await fill(datastore, 3)
    async with working(worker):
        await wait_until(lambda: len(begun) == 3)
    let_go.set()
    assert [(row["status"], row["attempts"], row["released_attempts"]) for row in await _metadata(datastore)] == [
        ("not_started", 0, 1)
    ] * 3


async def test_a_cancelled_run_gives_its_jobs_back(datastore: Datastore, source: Source) -> None:
    worker = Worker(source, "jobs")
    worker.handles()(sleep)
    await datastore.create("jobs", "a", metadata=WAITING)
    running = asyncio.create_task(worker.run())
    await wait_until(lambda: worker.in_flight == 1)
    await end(running)

    async def is_free() -> bool:
        item = await datastore.get("jobs", "a")
        return (item.status, item.metadata["attempts"]) == ("not_started", 0)

    # A claim of its own that waits at the server may have got the job, until the server learns that nobody waits.
    await wait_until(is_free)


async def test_an_idle_worker_waits_in_line_and_stops_at_once(datastore: Datastore) -> None:
    worker = Worker(datastore, "jobs")
    worker.handles()(sleep)
    async with working(worker):
        await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 1)
        worker.quiet()
        await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 0)
        await datastore.create("jobs", "a", metadata=WAITING)
    assert (await datastore.get("jobs", "a")).status == "not_started"


async def test_a_paused_key_is_gone_on_with_once_it_is_resumed(
    datastore: Datastore, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.worker.REST", 0.05)
    let_timers_come_early(monkeypatch)
    await datastore.pause("jobs")
    worker = Worker(source, "jobs")
    worker.handles()(raise_cancel)
    await datastore.create("jobs", "a", metadata=WAITING)
    async with working(worker):
        await asyncio.sleep(0.3)
        assert (await datastore.get("jobs", "a")).status == "not_started"
        await datastore.resume("jobs")
        await ended(datastore)


async def test_a_worker_runs_again(datastore: Datastore, source: Source) -> None:
    worker = Worker(source, "jobs", grace=0.2)
    ran: list[str] = []

    @worker.handles()
    async def handle(job: Job) -> None:
        ran.append(job.sort_field)
        await asyncio.sleep(10 if job.sort_field == "b" else 0)

    for times, name in enumerate(("a", "b", "c"), 1):
        await datastore.create("jobs", name, metadata=WAITING)
        async with working(worker):
            await wait_until(lambda times=times: len(ran) == times)  # type: ignore[misc]
        if name == "b":  # given back by who stopped
            await datastore.delete("jobs", "b")
    assert ran == ["a", "b", "c"]
    running = asyncio.create_task(worker.run())
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs"))
    await end(running)
    await datastore.create("jobs", "d", metadata=WAITING)
    async with working(worker):
        await ended(datastore, "d")


async def test_a_worker_that_is_stopped_just_as_it_begins_to_wait(
    datastore: Datastore, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was about to begin keeps no slot, and its end does not wait for it."""
    worker = Worker(source, "jobs", concurrency=1)
    worker.handles()(raise_cancel)
    begin = Worker._wait_in_line

    def begin_and_stop(self: Worker) -> None:
        begin(self)
        if self.lanes[0].waiting:
            self.stop()

    with monkeypatch.context() as patched:
        patched.setattr(Worker, "_wait_in_line", begin_and_stop)
        await asyncio.wait_for(worker.run(), 5)
    await datastore.create("jobs", "a", metadata=WAITING)
    async with working(worker):
        await ended(datastore)


async def test_results_that_cannot_be_told_end_the_claims(store: EmbeddedStore, settings: Settings) -> None:
    """Here the outbox is full: what has run is held, and would be run again after a stop."""
    full = replace(settings, outbox_max=2)
    trigger = {"url": "http://127.0.0.1:9/x", "apiKey": "k", "events": ["status:completed"]}
    async with Datastore(store.url, full, SecretBox(bytes(range(32)))) as datastore:
        await datastore.configure("jobs", trigger_urls=[trigger])
        await fill(datastore, 200)
        worker = Worker(datastore, "jobs", concurrency=2, grace=0.5)
        ran: set[str] = set()

        @worker.handles()
        async def handle(job: Job) -> None:
            ran.add(job.sort_field)

        async with working(worker):
            await wait_until(lambda: len(ran) >= worker._held_max)
            for _ in range(20):  # of turns in which it would go on
                await asyncio.sleep(0.01)
            assert worker.in_flight <= worker._held_max + worker.concurrency
        assert len(ran) < 100


async def test_a_stop_after_the_end_is_not_for_the_next_run(datastore: Datastore, source: Source) -> None:
    worker = Worker(source, "jobs")
    worker.handles()(raise_cancel)
    for name in ("a", "b"):
        await datastore.create("jobs", name, metadata=WAITING)
        async with working(worker):
            await ended(datastore, name)
        worker.stop()
    before = Worker(source, "jobs")
    before.handles()(sleep)
    before.stop()
    await asyncio.wait_for(before.run(), 5)


def test_a_worker_runs_again_on_another_loop() -> None:
    client = Client("http://127.0.0.1:1")  # nobody is there
    worker = Worker(client, "jobs")
    worker.handles()(sleep)
    for _ in range(2):
        asyncio.run(_run_shortly(worker, client))


async def _run_shortly(worker: Worker, client: Client) -> None:
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0.1)
    assert not running.done()
    worker.stop()
    await running
    await client.close()


async def retry_later(_: Job) -> None:
    raise Retry("no paper", after="5m")


@pytest.mark.parametrize(
    ("handler", "options", "level", "said"),
    [
        (sleep, {"timeout": "0.1s"}, "WARNING", " failed: TimedOut: took longer than 0.1 s"),
        (raise_value_error, {}, "WARNING", " failed: ValueError: no such report"),
        (retry_later, {}, "INFO", " is to be tried again, after 5m: no paper"),
        (retry_by_an_error, {}, "INFO", " is to be tried again: ValueError: no paper"),
    ],
)
async def test_the_log_says_why_an_attempt_failed(
    datastore: Datastore, caplog: pytest.LogCaptureFixture, handler: Any, options: Any, level: str, said: str
) -> None:
    caplog.set_level(logging.INFO, "hookline.holding")
    await outcome_of(datastore, datastore, handler, **options)
    (record,) = [each for each in caplog.records if each.name == "hookline.holding"]
    assert (record.levelname, record.getMessage()) == (level, f"Job(key='jobs', sort_field='a', attempt=1){said}")


async def test_what_can_not_be(datastore: Datastore) -> None:
    with pytest.raises(Invalid):
        Worker(datastore, "jobs", concurrency=0)
    with pytest.raises(Invalid, match="/key"):
        Worker(datastore, ["a", "b"])  # type: ignore[arg-type]  # it is what the test is about
    for source in (SyncClient("http://127.0.0.1:1"), "http://127.0.0.1:1"):
        with pytest.raises(Invalid, match=f"expected a Datastore or a Client, not {type(source).__name__}"):
            Worker(source, "jobs")  # type: ignore[arg-type]
    with pytest.raises(Invalid):
        await Worker(datastore, "jobs").run()
    reserved, badly_filtered = Worker(datastore, "hookline.x"), Worker(datastore, "jobs")
    reserved.handles()(sleep)
    with pytest.raises(ReservedKey):
        await reserved.run()
    badly_filtered.handles(where={"n": {"like": 1}})(sleep)
    with pytest.raises(Invalid, match="/where/n"):
        await badly_filtered.run()


async def test_a_claim_that_is_given_up_gives_back_what_it_took(datastore: Datastore) -> None:
    """Whenever it is cancelled: no item is held by nobody."""
    got = 0
    for number in range(60):
        key = f"jobs-{number}"
        claiming = asyncio.create_task(datastore.claim(key, worker_id="w", wait=20))
        await wait_until(partial(datastore.claims.waiters.waiting, key))
        await datastore.create(key, "a", metadata=WAITING)
        for _ in range(number % 20):
            await asyncio.sleep(0)
        claiming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            got += len((await claiming).items)
    assert (await statuses(datastore)).get("started", 0) == got


async def _count(datastore: Datastore, status: str, wanted: int) -> bool:
    return (await statuses(datastore)).get(status) == wanted


async def _metadata(datastore: Datastore) -> list[dict[str, Any]]:
    return [item.metadata for item in (await datastore.query("jobs", limit=1000)).items]
