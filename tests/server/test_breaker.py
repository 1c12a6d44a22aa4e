"""The circuit breaker and the room of a lane, on a clock of the test's own."""

from __future__ import annotations

import time

import pytest

from hookline_server import retry
from hookline_server.breaker import FAILURES, FIRST_WAIT, LONGEST_WAIT, Breaker
from hookline_server.endpoint import Endpoint
from hookline_server.event import Delivery, Target
from hookline_server.lane import Lane
from hookline_server.loopguard import LoopGuard


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.note(now, ok=False)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = Breaker()
    told = [breaker.note(0.0, ok=False) for _ in range(FAILURES - 1)]
    assert not any(told)
    assert breaker.room(0.0, 7) == 7
    breaker.note(0.0, ok=True)
    assert not any(breaker.note(0.0, ok=False) for _ in range(FAILURES - 1))
    assert breaker.note(0.0, ok=False)
    assert (breaker.state(0.1), breaker.room(0.1, 7)) == ("open", 0)


def test_half_open_it_lets_one_attempt_pass() -> None:
    breaker = opened()
    now = FIRST_WAIT * 1.2
    assert (breaker.state(now), breaker.room(now, 7)) == ("half-open", 1)
    breaker.begin(now)
    assert breaker.room(now, 7) == 0
    assert breaker.note(now, ok=True)
    assert (breaker.state(now), breaker.room(now, 7)) == ("closed", 7)


def test_each_failed_probe_doubles_the_wait() -> None:
    breaker, now = opened(), 0.0
    for probe in range(1, 12):
        now = breaker.until
        breaker.begin(now)
        assert breaker.note(now, ok=False)
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2**probe)
        assert 0.79 * wait <= breaker.until - now <= 1.21 * wait


def test_failures_of_attempts_begun_before_do_not_prolong_it() -> None:
    breaker = opened()
    until = breaker.until
    assert not breaker.note(1.0, ok=False)
    assert breaker.until == until


def lane(**known: object) -> Lane:
    return Lane(Endpoint("0" * 20, **known), concurrency=4)  # type: ignore[arg-type]


def test_a_lane_that_is_drained_keeps_half_of_itself_from_new_events() -> None:
    it = lane()
    assert (it.room(0.0, direct=True), it.room(0.0)) == (4, 4)
    it.draining = True
    assert (it.room(0.0, direct=True), it.room(0.0)) == (2, 4)
    it.begin(0.0)
    it.begin(0.0)
    assert (it.room(0.0, direct=True), it.room(0.0)) == (0, 2)
    narrow = lane(concurrency=1)
    narrow.draining = True
    assert (narrow.room(0.0, direct=True), narrow.room(0.0)) == (0, 1)


def test_a_lane_has_its_rate() -> None:
    it = lane(rate=2.0)
    it.begin(100.0)
    it.end()
    begun = 0
    for tenth in range(100):
        now = 100.0 + tenth / 10
        while it.room(now):
            it.begin(now)
            it.end()
            begun += 1
    assert 18 <= begun <= 22
    assert it.opens_at(109.9) > 109.9


@pytest.mark.parametrize("known", [{"status": "paused"}, {"status": "disabled"}, {"retry_at": 10.0}])
def test_a_lane_without_leave_has_no_room(known: dict[str, object]) -> None:
    it = lane(**known)
    assert it.room(9.0) == it.room(9.0, direct=True) == 0
    assert it.opens_at(9.0) == 10.0
    assert bool(it.room(10.0)) == ("retry_at" in known)


def test_what_is_held_off_by_a_clock_that_was_put_back_is_let_go() -> None:
    assert opened(86_400.0).state(86_401.0) == "open"
    assert opened(86_400.0).state(80_000.0) == "half-open"
    held = lane(retry_at=86_400.0)
    assert (held.room(86_400.0 - retry.ASKED_MAX), held.room(80_000.0)) == (0, 4)
    assert held.opens_at(80_000.0) == 80_000.0


def test_the_loop_guard_counts_anew_where_the_clock_was_put_back() -> None:
    guard = LoopGuard(1)
    call = Delivery("w-0-1-0", "jobs", "a", {}, Target("http://h/", b""), "")
    waits = [guard.wait(call, now)[0] > 0 for now in (86_400.0, 86_401.0, 80_000.0, 80_001.0, 80_100.0)]
    assert waits == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (None, 0),
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("-5", 0),
        ("soon", 0),
        ("99999999999999999999", retry.ASKED_MAX),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40),
        ("Thu, 01 Jan 1970 00:00:20 GMT", 0),
        ("Thu Jan  1 00:01:40 1970", 40),
        ("Sun, 06 Nov 2194 08:49:37 GMT", retry.ASKED_MAX),
    ],
)
def test_retry_after_is_read_in_all_forms_and_bounded(
    monkeypatch: pytest.MonkeyPatch, written: str | None, seconds: float
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert retry.read_retry_after(written, now=60.0) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


def test_delays_follow_the_schedule_with_jitter_and_stay_at_its_last() -> None:
    for attempts, wait in ((1, 1.0), (2, 10.0), (3, 10.0)):
        delays = [retry.delay_after(attempts, (1.0, 10.0)) for _ in range(50)]
        assert all(0.8 * wait <= delay <= 1.2 * wait for delay in delays)
        assert len(set(delays)) > 1
