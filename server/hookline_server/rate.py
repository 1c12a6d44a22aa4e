"""The rate of requests: so many in a time for each caller, told in ``RateLimit`` headers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from hookline import Settings
from hookline_server.answer import Header
from hookline_server.problem import Problem

CALLERS_MAX = 10_000
"""Callers that are kept at one time: beyond that whoever has asked least recently is forgotten."""


def rate_of(settings: Settings) -> Rate | None:
    """The limit that the settings ask for, if they do."""
    return Rate(settings.rate_limit, settings.rate_window) if settings.rate_limit else None


class Rate:
    """A bucket of ``quota`` requests for each caller, which fills evenly within ``window`` seconds."""

    def __init__(self, quota: int, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window, self._each = window, window / quota
        self._clock = clock
        self._policy = b'"default";q=%d;w=%d' % (quota, math.ceil(window))
        self._full: dict[str, float] = {}

    def take(self, caller: str) -> list[Header]:
        """Count one request of a caller -> the headers that tell what is left.

        Raises:
            Problem: none is; it tells when there is one.
        """
        now = self._clock()
        # When its bucket will be full is all there is to know of a caller. Put in again it is the last to be forgotten.
        full = max(self._full.pop(caller, now), now)
        if len(self._full) >= CALLERS_MAX:
            del self._full[next(iter(self._full))]
        taken = full + self._each - now
        refused = taken > self._window
        full += 0 if refused else self._each
        self._full[caller] = full
        left = 0 if refused else int((self._window - taken) / self._each)
        state = b'"default";r=%d;t=%d' % (left, math.ceil(full - now))
        if refused:
            headers = {"RateLimit-Policy": self._policy.decode(), "RateLimit": state.decode()}
            headers["Retry-After"] = str(math.ceil(taken - self._window))
            raise Problem("rate_limited", "this caller has made as many requests as it may for now", headers)
        return [(b"ratelimit-policy", self._policy), (b"ratelimit", state)]
