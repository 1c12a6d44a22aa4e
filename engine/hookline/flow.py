"""The verbs over HTTP as flows: each yields requests, is sent their answers, and returns what the verb gives.

A flow knows no transport, so that :class:`Client` and :class:`SyncClient` are the same but for who waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from hookline import answers
from hookline.arguments import SettingsArguments
from hookline.calls import CLAIM_MAX, QUERY_MAX, UNSET, check_limit, given_settings, present
from hookline.errors import HooklineError, Invalid, NotFound, OutcomeUnknown, ReservedKey, Unavailable
from hookline.item import DEPTH_MAX, RESERVED_PREFIX, TERMINAL, Item, check_key, check_sort_field, check_value
from hookline.keysettings import ARGUMENTS, KeySettings, encode_settings
from hookline.operations import SETTLES, Operation, check_claim
from hookline.outcome import Changed, Claimed, Outcome
from hookline.query import Count, Page
from hookline.registry import Presence, Workers, read_workers
from hookline.upkeep import Build
from hookline.where import compile_where, require_where

WAIT_MAX = 20.0
"""Seconds that one request waits; a longer wait is several."""
BYTES_MAX = 524_288
"""Bytes of the operations of one request, about: a server takes 1 MiB by default."""
_WORDS = 64
"""Bytes at most of the words around one operation."""
_DOTS = {".": "%2E", "..": "%2E%2E"}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``harmless``: a repeat does no harm, so it may be sent again where no answer came.

    ``patience`` is for how many seconds the server may think about it by itself. ``headers`` is where an
    ``Idempotency-Key`` goes, which makes a write harmless.
    """

    method: str
    path: str
    body: Any = UNSET
    harmless: bool = False
    patience: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def watches(self) -> bool:
        """Whether it is a read that waits for a change."""
        return self.method == "GET" and self.patience > 0

    @property
    def target(self) -> str:
        """The path; of a read that waits, with how long. A write says that in its body."""
        return f"{self.path}?wait={round(self.patience * 1000)}ms" if self.watches else self.path


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: never an error, which is thrown into the flow instead."""

    status: int
    data: Any


Flow = Generator[Request, Answer, T]


def plain(value: Any) -> Any:
    """What an argument may be beside what JSON has: a mapping of any type, a member of an enum of texts.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"expected a JSON value, not {type(value).__name__}")


encode = msgspec.json.Encoder(enc_hook=plain).encode
"""The body of a request as it is sent."""


def path(*parts: str) -> str:
    """The path of a resource. Dots alone would be the segment before, or none."""
    return "/v1/" + "/".join(_DOTS.get(part) or quote(part, safe="") for part in parts)


def create(operation: Operation, *, named: bool = True) -> Flow[Outcome]:
    """Create an item. Not ``named``, the server names it by the idempotency key, so that a repeat finds it."""
    if operation.match is not None:
        answer = yield _single("PUT", operation, names=("content", "metadata", "triggerUrls"))
        return answers.read_written(answer.data)
    if not operation.triggers:
        return (yield from _alone(operation))
    name = {"sortField": operation.sort_field} if named else {}
    body = {"key": operation.key, **name, **operation.body}
    return answers.read_written((yield Request("POST", "/v1/items", body)).data)


def update(operation: Operation) -> Flow[Outcome]:
    """Update an item."""
    return answers.read_written((yield _single("PATCH", operation)).data)


def delete(operation: Operation) -> Flow[Outcome]:
    """Delete an item."""
    if operation.body:
        return (yield from _alone(operation))
    yield _single("DELETE", operation, names=())
    return Outcome("ok", operation.key, operation.sort_field)


def _single(method: str, operation: Operation, names: Sequence[str] | None = None) -> Request:
    """A request to one item; ``names`` are of the body what it has, if not all."""
    body = operation.body if names is None else present({name: operation.body.get(name) for name in names})
    headers = {} if operation.match is None else {"If-Match": f'"{operation.match}"'}
    where = path("items", operation.key, operation.sort_field) + ("" if operation.triggers else "?triggers=off")
    return Request(method, where, UNSET if names == () else body, headers=headers)


def _alone(operation: Operation) -> Flow[Outcome]:
    """A batch of one, for what the routes of single items cannot say."""
    (outcome,) = yield from _batch([operation])
    if not outcome.ok:
        raise outcome.error()
    return outcome


def run(operations: Sequence[Operation]) -> Flow[list[Outcome]]:
    """Many operations. After a failure of the server nothing more is sent."""
    outcomes: list[Outcome] = []
    failure: HooklineError | None = None
    sent = 0
    for (settles, key, _, single), group in groupby(enumerate(operations), _family):
        for part in _parts([operation for _, operation in group]):
            if failure:
                error = Unavailable("an operation before this one failed")
                outcomes += [answers.refused(each.key, each.sort_field, error) for each in part]
                continue
            sent += 1
            try:
                if settles:
                    found, _ = yield from _settle(key, part)
                elif single is not None:
                    found = [(yield from _VERBS[part[0].verb](part[0]))]
                else:
                    found = yield from _batch(part)
            except (Unavailable, OutcomeUnknown) as error:
                failure = error
                found = [answers.refused(each.key, each.sort_field, error) for each in part]
            except HooklineError as error:
                if single is None and sent == 1:
                    raise
                found = [answers.refused(each.key, each.sort_field, error) for each in part]
            outcomes += found
    if failure and sent == 1:
        raise failure
    return outcomes


_VERBS = {"create": create, "update": update, "delete": delete}


def _family(placed: tuple[int, Operation]) -> tuple[bool, str, bool, int | None]:
    """What may go in the same request: a condition by If-Match goes alone, which its place says."""
    place, operation = placed
    single = None if operation.match is None else place
    return operation.settles, operation.key if operation.settles else "", operation.triggers, single


def _parts(operations: Sequence[Operation]) -> list[list[Operation]]:
    """As many as one request takes, at least one. It settles verb by verb, so one item's next verb may have to wait."""
    parts: list[list[Operation]] = []
    latest: dict[tuple[str, str], int] = {}
    size = 0
    for operation in operations:
        name = operation.key, operation.sort_field
        turn = SETTLES.index(operation.verb) if operation.settles else 0
        more = len(encode((*name, operation.body))) + _WORDS
        if not parts or len(parts[-1]) == CLAIM_MAX or size + more > BYTES_MAX or turn < latest.get(name, 0):
            parts.append([])
            latest.clear()
            size = 0
        parts[-1].append(operation)
        latest[name] = turn
        size += more
    return parts


def _batch(operations: Sequence[Operation]) -> Flow[list[Outcome]]:
    body = [{"op": each.verb, "key": each.key, "sortField": each.sort_field, **each.body} for each in operations]
    where = "/v1/items:batch" + ("" if operations[0].triggers else "?triggers=off")
    results = (yield Request("POST", where, {"operations": body})).data["results"]
    return [
        answers.read_result(each.key, each.sort_field, result) for each, result in zip(operations, results, strict=True)
    ]


def exchange(operations: Sequence[Operation], key: str, claim: dict[str, Any]) -> Flow[tuple[list[Outcome], Claimed]]:
    """Settle, and claim again in the request that settles the last of it."""
    if "max_in_flight" in claim:
        raise TypeError("an exchange has no max_in_flight")
    body = _claim_body(key, claim)
    # By place, not by operation: the same one may be there twice.
    places = sorted(range(len(operations)), key=lambda place: operations[place].key == key)
    last = (_parts([each for each in operations if each.key == key]) or [[]])[-1]
    early = places[: len(places) - len(last)]
    found = (yield from run([operations[place] for place in early])) if early else []
    settled, claimed = yield from _settle(key, last, body)
    outcomes = dict(zip(places, [*found, *settled], strict=True))
    return [outcomes[place] for place in range(len(operations))], claimed or Claimed([])


def _settle(
    key: str, operations: Sequence[Operation], claim: dict[str, Any] | None = None
) -> Flow[tuple[list[Outcome], Claimed | None]]:
    by_verb: dict[str, list[int]] = {}
    for place, operation in enumerate(operations):
        by_verb.setdefault(operation.verb, []).append(place)
    body: dict[str, Any] = {verb: [operations[place].body for place in some] for verb, some in by_verb.items()}
    if claim:
        body["claim"] = claim
    # To prolong a claim twice does no harm; to end one twice is answered stale_token.
    harmless = claim is None and set(by_verb) == {"extend"}
    shown = (yield Request("POST", path("jobs", key, "settle"), body, harmless)).data
    found = {
        place: answers.read_settled(key, outcome)
        for verb, some in by_verb.items()
        for place, outcome in zip(some, shown[verb], strict=True)
    }
    return [found[place] for place in range(len(operations))], answers.read_claimed(shown["claimed"]) if claim else None


def claim(key: str, wait: float, options: dict[str, Any], headers: Mapping[str, str]) -> Flow[Claimed]:
    """Claim items, and wait for one where there is none.

    With an idempotency key in ``headers`` its requests are one and the same: a repeat finds what any of them took.
    """
    body, deadline = _claim_body(key, options), time.monotonic() + wait
    share = _share(wait) if headers else 0.0
    where = path("jobs", key, "claim")
    while True:
        left = share or min(WAIT_MAX, max(0.0, deadline - time.monotonic()))  # of a wait that is no number, 0
        asked = body | {"wait": round(left, 3)} if left else body
        claimed = answers.read_claimed((yield Request("POST", where, asked, patience=left, headers=headers)).data)
        if claimed.items or claimed.failure or not time.monotonic() + share / 2 < deadline:
            return claimed


def _share(wait: float) -> float:
    """Seconds of each of as few requests as may share a wait evenly."""
    wait = max(0.0, wait)
    return wait / math.ceil(wait / WAIT_MAX) if WAIT_MAX < wait < math.inf else min(WAIT_MAX, wait)


_CLAIM = {
    "worker_id": "workerId",
    "limit": "limit",
    "lock_for": "lockFor",
    "where": "where",
    "triggers": "triggers",
    "max_in_flight": "maxInFlight",
}


def _claim_body(key: str, options: dict[str, Any]) -> dict[str, Any]:
    unknown = options.keys() - _CLAIM.keys()
    if unknown:
        raise TypeError(f"a claim over HTTP has no {min(unknown)}")
    check_claim(key, **options)
    return present({_CLAIM[name]: value for name, value in options.items()})


def change(verb: str, key: str, where: object, *, triggers: bool = True) -> Flow[Changed]:
    """Cancel, redrive or delete all items of a key that match: a request for about each thousand of them."""
    check_key(key)
    if verb == "delete":
        require_where(where)
    compile_where(where)
    place = path("items" if verb == "delete" else "jobs", key, verb) + ("" if triggers else "?triggers=off")
    done = passed_over = 0
    cursor: str | None = None
    while True:
        body = present({"where": where or {}, "cursor": cursor})
        shown = (yield Request("POST", place, body, patience=5.0)).data
        done, passed_over, cursor = done + shown["done"], passed_over + shown["passedOver"], shown["cursor"]
        if cursor is None:
            return Changed(done, passed_over)


def get(key: str, sort_field: str) -> Flow[Item]:
    """One item."""
    check_key(key)
    check_sort_field(sort_field)
    return answers.read_item((yield Request("GET", path("items", key, sort_field), harmless=True)).data)


def get_many(names: Sequence[tuple[str, str]]) -> Flow[list[Item | None]]:
    """Items by their names."""
    for key, sort_field in names:
        check_key(key)
        check_sort_field(sort_field)
    found: list[Item | None] = []
    while len(found) < len(names):
        some = names[len(found) : len(found) + CLAIM_MAX]
        body = {"operations": [{"op": "get", "key": key, "sortField": sort_field} for key, sort_field in some]}
        results = (yield Request("POST", "/v1/items:batch", body, harmless=True)).data["results"]
        for place, result in enumerate(results):
            if place and result.get("problem", {}).get("code") == "body_too_large":
                break  # the answer had no room for this and those after it
            error = answers.read_error(result["problem"]) if "problem" in result else None
            if error and not isinstance(error, NotFound):
                raise error
            found.append(None if error else answers.read_item(result["item"]))
    return found


def wait_for(key: str, sort_field: str, until: object, seconds: float) -> Flow[Item | None]:
    """The item once it meets the filters, or has ended where there are none."""
    check_key(key)
    check_sort_field(sort_field)
    compile_where(until, "/until")
    deadline = time.monotonic() + seconds
    headers: dict[str, str] = {}
    left = 0.0
    while True:
        where = path("items", key, sort_field)
        answer = yield Request("GET", where, harmless=True, patience=left, headers=headers)
        if answer.status != 304:
            item = answers.read_item(answer.data)
            if until is None:
                met: Item | None = item if item.status in TERMINAL else None
            else:
                met = yield from _meeting(item, until)
            if met:
                return met
            headers = {"If-None-Match": item.etag}
        left = min(WAIT_MAX, deadline - time.monotonic())
        if not time.monotonic() < deadline:
            return None


def _meeting(item: Item, until: object) -> Flow[Item | None]:
    """The item, if it meets the filters: the server knows what they mean."""
    where = {**(until if isinstance(until, Mapping) else {}), "sortField": item.sort_field}
    page = yield from query(item.key, {"where": where, "limit": 1})
    return page.items[0] if page.items else None


def query(key: str, options: Mapping[str, Any]) -> Flow[Page]:
    """A page of items."""
    body = _asked(key, options)
    check_limit(options.get("limit"), QUERY_MAX)
    shown = (yield Request("POST", path("items", key, "query"), body, harmless=True)).data
    items = [answers.read_item(item) for item in shown["items"]]
    return Page(items, shown["cursor"], answers.read_explanation(shown["explain"]))


def _asked(key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a query; what a server would read as something else is refused."""
    check_key(key)
    compile_where(options.get("where"))
    for name in ("order", "cursor"):
        if not isinstance(options.get(name), str | None):
            raise Invalid.at(f"/{name}", "expected text")
        check_value(options.get(name), f"/{name}")
    return present(options) | {"explain": True}


def count(key: str, options: Mapping[str, Any]) -> Flow[Count]:
    """How many items match."""
    body = _asked(key, options) | {"count": True}
    shown = (yield Request("POST", path("items", key, "query"), body, harmless=True)).data
    return Count(shown["count"], shown["cursor"], answers.read_explanation(shown["explain"]))


def configure(key: str, arguments: SettingsArguments) -> Flow[KeySettings]:
    """Change settings of a key."""
    if check_key(key).startswith(RESERVED_PREFIX):
        raise ReservedKey
    changes = given_settings(arguments)
    encode_settings(changes, 1, lambda _: b"")
    names = {argument: shown for shown, argument in ARGUMENTS.items()}
    body = {names[name]: value for name, value in changes.items()}
    where = path("keys", key, "settings")
    # The same change once more changes nothing.
    request = Request("PATCH", where, body, harmless=True) if body else Request("GET", where, harmless=True)
    return answers.read_settings((yield request).data)


def builds(key: str) -> Flow[dict[str, Build]]:
    """How far the indexes of a key are."""
    shown = (yield Request("GET", path("keys", check_key(key), "settings"), harmless=True)).data
    return {name: Build(**build) for name, build in shown.get("building", {}).items()}


def set_paused(key: str, *, paused: bool) -> Flow[None]:
    """Pause or resume a key."""
    yield Request("POST", path("jobs", check_key(key), "pause" if paused else "resume"), harmless=True)


def command(text: str, names: Mapping[str, Any]) -> Flow[list[dict[str, Any]]]:
    """Run a text of commands."""
    body = {"text": text, "names": _value(names)}
    check_value(body, "")
    results: list[dict[str, Any]] = (yield Request("POST", "/v1/command", body, patience=330.0)).data["results"]
    return results


def _value(value: Any, depth: int = 0) -> Any:
    """The value of a name as a text has those of its own results; a claim's token is not among them."""
    if depth > DEPTH_MAX:  # which is refused next
        return value
    if isinstance(value, Item):
        value = value.to_dict()
        value.pop("token", None)
        return value
    if isinstance(value, Mapping):
        return {name: _value(member, depth + 1) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_value(member, depth + 1) for member in value]
    return str.__str__(value) if isinstance(value, str) else value


def heartbeat(presence: Presence) -> Flow[str | None]:
    """A worker lives."""
    told = presence.to_dict()
    body = {name: told[name] for name in ("host", "pid", "handlers", "concurrency", "inFlight")}
    answer = yield Request("PUT", path("workers", presence.key, presence.worker_id), body, harmless=True)
    signal: str | None = answer.data["signal"]
    return signal


def leave(presence: Presence) -> Flow[None]:
    """A worker has ended."""
    yield Request("DELETE", path("workers", presence.key, presence.worker_id), harmless=True)


def workers() -> Flow[Workers]:
    """The workers that live."""
    return read_workers((yield Request("GET", "/v1/workers", harmless=True)).data)


def signal_worker(presence: Presence, signal: str) -> Flow[None]:
    """Ask a worker for something."""
    yield Request("POST", path("workers", presence.key, presence.worker_id), {"signal": signal}, harmless=True)
