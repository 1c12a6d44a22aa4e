"""``/v1/jobs``: items as jobs: claim them, end or prolong claims."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline import Call, Datastore
from hookline.calls import CLAIM_MAX
from hookline.codec import encode_metadata, encode_native
from hookline.errors import Flaw, Invalid
from hookline.item import check_key
from hookline.operations import SETTLES
from hookline_server import body, head, shapes
from hookline_server.answer import Answer
from hookline_server.body import Body, pack_each
from hookline_server.caller import datastore_of
from hookline_server.fields import (
    Backoff,
    ClaimTriggers,
    Duration,
    Error,
    InFlight,
    Limit,
    Results,
    SortField,
    Token,
    Where,
    WorkerId,
)
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.routes import while_connected
from hookline_server.view import describe_claimed, describe_settled


class Claim(Body):
    """A claim of up to ``limit`` items that match ``where``; with ``wait`` it waits for the first."""

    worker_id: WorkerId
    limit: Limit = 1
    lock_for: Duration | UnsetType = UNSET
    wait: Duration | UnsetType = UNSET
    where: Where = UNSET
    triggers: ClaimTriggers | UnsetType = UNSET
    max_in_flight: InFlight | UnsetType = UNSET


class NextClaim(Body):
    """A claim that follows the settling of others, by the same worker unless it names one."""

    worker_id: WorkerId | UnsetType = UNSET
    limit: Limit = 1
    lock_for: Duration | UnsetType = UNSET
    where: Where = UNSET
    triggers: ClaimTriggers | UnsetType = UNSET


class Settlement(Body):
    """One claim that ends or goes on, shown by its token."""

    sort_field: SortField
    token: Token


class Complete(Settlement):
    """The work is done."""

    packs: ClassVar = {"metadata": encode_metadata}

    metadata: Results | UnsetType = UNSET


class Fail(Settlement):
    """This attempt failed."""

    packs: ClassVar = {"metadata": encode_metadata}

    error: Error | UnsetType = UNSET
    retry_after: Duration | UnsetType = UNSET
    backoff: Backoff = UNSET
    metadata: Results | UnsetType = UNSET


class Release(Settlement):
    """The job goes back, uncounted."""

    delay: Duration | UnsetType = UNSET


class Extend(Settlement):
    """The worker needs longer."""

    lock_for: Duration | UnsetType = UNSET


class Settle(Body):
    """Claims to end or prolong, and the claim to make after that."""

    packs: ClassVar = {verb: partial(pack_each, pointer=f"/{verb}") for verb in ("complete", "fail")}

    worker_id: WorkerId | UnsetType = UNSET
    complete: list[Complete] = msgspec.field(default_factory=list)
    fail: list[Fail] = msgspec.field(default_factory=list)
    release: list[Release] = msgspec.field(default_factory=list)
    extend: list[Extend] = msgspec.field(default_factory=list)
    claim: NextClaim | UnsetType = UNSET


@Operation(
    name="claimJobs",
    takes={JSON: (Claim,)},
    example={"workerId": "w1", "limit": 10, "lockFor": "10m"},
    replies={200: Reply("What was claimed; nothing there is an empty list.", shapes.Claimed)},
    refuses=("paused", "reserved_key", "outbox_full"),
    writes=True,
)
async def claim(request: Request) -> Response:
    """Claim jobs.

    Those whose lock has expired, then those in line: by ``priority``, then by how long they have waited. With ``wait``
    the answer comes with the first item, or after 25 s at the latest.
    """
    head.read_query(request)
    given = (await body.read_json(request, Claim)).given()
    wait = body.read_wait(given.pop("wait", 0))
    datastore = datastore_of(request)
    claiming = datastore.claim(head.read_key(request), wait=wait, **given)
    return Answer(describe_claimed(await (while_connected(request, claiming) if wait else claiming)))


@Operation(
    name="settleJobs",
    takes={JSON: (Settle,)},
    example={"workerId": "w1", "complete": [{"sortField": "job-001", "token": "2.0f", "metadata": {"rows": 3}}]},
    replies={200: Reply("What became of each.", shapes.AllSettled)},
    refuses=("reserved_key",),
    writes=True,
)
async def settle(request: Request) -> Response:
    """End and prolong claims, and claim again.

    A failed item waits by its backoff until its attempts are used up. ``claim`` follows in the same call.
    """
    head.read_query(request)
    wanted = await body.read_json(request, Settle)
    datastore = datastore_of(request)
    key = check_key(head.read_key(request))
    calls = _settle_calls(datastore, key, wanted)
    answer: dict[str, Any] = {}
    if isinstance(wanted.claim, NextClaim):
        options = _claim_options(wanted, wanted.claim)
        try:
            outcomes, claimed = await datastore.exchange(calls, key, **options)
        except Invalid as invalid:
            raise Invalid(*body.within(invalid, "/claim")) from None
        answer["claimed"] = describe_claimed(claimed)
    else:
        outcomes = await datastore.settle(calls)
    shown = iter([describe_settled(outcome) for outcome in outcomes])
    return Answer({verb: [next(shown) for _ in getattr(wanted, verb)] for verb in SETTLES} | answer)


def _settle_calls(datastore: Datastore, key: str, wanted: Settle) -> list[Call]:
    """The calls in order of verb and list; one that is malformed refuses them all.

    Raises:
        Invalid: they are too many; or each bad field is named.
    """
    if sum(len(getattr(wanted, verb)) for verb in SETTLES) > CLAIM_MAX:
        raise Invalid.at("", f"expected at most {CLAIM_MAX} operations")
    calls: list[Call] = []
    flaws: list[Flaw] = []
    for verb in SETTLES:
        for place, operation in enumerate(getattr(wanted, verb)):
            try:
                calls.append(getattr(datastore.calls, verb)(key, **operation.given()))
            except Invalid as invalid:
                flaws += body.within(invalid, f"/{verb}/{place}")
    if flaws:
        raise Invalid(*flaws)
    return calls


def _claim_options(wanted: Settle, following: NextClaim) -> dict[str, Any]:
    options = {"worker_id": wanted.worker_id} | following.given()
    if options["worker_id"] is UNSET:
        raise Invalid.at("/claim/workerId", "expected a value: here, or as /workerId")
    if following.worker_id is UNSET:
        encode_native("worker_id", "word", options["worker_id"], "/workerId")  # for what is wrong stands there
    return options


routes = [
    Route("/v1/jobs/{key}/claim", claim, methods=["POST"]),
    Route("/v1/jobs/{key}/settle", settle, methods=["POST"]),
]
