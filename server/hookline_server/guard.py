"""The guard: which scope each route asks for, in one table, and the layer that asks for it."""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hookline.errors import MissingScope
from hookline.grant import ADMIN, READ, WORK, WRITE
from hookline_server.answer import ADDED, Header
from hookline_server.caller import CALLER, OPERATOR, UNLIMITED, anonymous
from hookline_server.gate import Gate
from hookline_server.limits import peer_of
from hookline_server.once import Endpoint, repeatable
from hookline_server.operation import READS
from hookline_server.problem import Problem
from hookline_server.shares import Shares

ANY = (READ, WRITE, WORK)
"""Any scope will do: what is asked for in the body is held against the key, operation by operation."""
OPEN = ()
"""No key is asked for."""
ISSUING = (UNLIMITED,)
"""An API key that is limited to item keys must not make one that is not."""
DELIVERING = (UNLIMITED,)
"""What webhooks carry is of all item keys."""
OPERATING = (OPERATOR,)
"""What shows all namespaces."""

SCOPES: dict[tuple[str, str], Collection[str]] = {
    ("POST", "/v1/items"): (WRITE,),
    ("GET", "/v1/items/{key}"): (READ,),
    ("POST", "/v1/items/{key}/query"): (READ,),
    ("GET", "/v1/items/{key}/{sort_field:path}"): (READ,),
    ("PUT", "/v1/items/{key}/{sort_field:path}"): (WRITE,),
    ("PATCH", "/v1/items/{key}/{sort_field:path}"): (WRITE,),
    ("DELETE", "/v1/items/{key}/{sort_field:path}"): (WRITE,),
    ("POST", "/v1/items/{key}/delete"): (WRITE,),
    ("POST", "/v1/items:batch"): (READ, WRITE),
    ("POST", "/v1/jobs/{key}/claim"): (WORK,),
    ("POST", "/v1/jobs/{key}/settle"): (WORK,),
    ("POST", "/v1/jobs/{key}/cancel"): (WRITE,),
    ("POST", "/v1/jobs/{key}/redrive"): (WRITE,),
    ("POST", "/v1/jobs/{key}/pause"): (ADMIN,),
    ("POST", "/v1/jobs/{key}/resume"): (ADMIN,),
    ("GET", "/v1/workers"): (READ,),
    ("PUT", "/v1/workers/{key}/{worker_id:path}"): (WORK,),
    ("DELETE", "/v1/workers/{key}/{worker_id:path}"): (WORK,),
    ("POST", "/v1/workers/{key}/{worker_id:path}"): (ADMIN,),
    ("GET", "/v1/keys"): (READ,),
    ("GET", "/v1/keys/{key}/settings"): (READ,),
    ("PUT", "/v1/keys/{key}/settings"): (ADMIN,),
    ("PATCH", "/v1/keys/{key}/settings"): (ADMIN,),
    ("GET", "/v1/orchestrations"): (ADMIN,),
    ("GET", "/v1/orchestrations/{name}"): (ADMIN,),
    ("PUT", "/v1/orchestrations/{name}"): (ADMIN,),
    ("DELETE", "/v1/orchestrations/{name}"): (ADMIN,),
    ("POST", "/v1/orchestrations/{name}/run"): (ADMIN,),
    ("POST", "/v1/orchestrations/{name}/enable"): (ADMIN,),
    ("POST", "/v1/orchestrations/{name}/disable"): (ADMIN,),
    ("GET", "/v1/orchestrations/{name}/runs"): (ADMIN,),
    ("GET", "/v1/orchestrations/{name}/next"): (ADMIN,),
    ("GET", "/v1/schedules"): (ADMIN,),
    ("GET", "/v1/schedules/{name}"): (ADMIN,),
    ("PUT", "/v1/schedules/{name}"): (ADMIN,),
    ("DELETE", "/v1/schedules/{name}"): (ADMIN,),
    ("POST", "/v1/schedules/{name}/run"): (ADMIN,),
    ("POST", "/v1/schedules/{name}/enable"): (ADMIN,),
    ("POST", "/v1/schedules/{name}/disable"): (ADMIN,),
    ("GET", "/v1/schedules/{name}/runs"): (ADMIN,),
    ("GET", "/v1/schedules/{name}/next"): (ADMIN,),
    ("GET", "/v1/deliveries"): DELIVERING,
    ("GET", "/v1/deliveries/{delivery}"): DELIVERING,
    ("POST", "/v1/deliveries/redrive"): DELIVERING,
    ("POST", "/v1/deliveries/cancel"): DELIVERING,
    ("POST", "/v1/deliveries/{delivery}/redrive"): DELIVERING,
    ("POST", "/v1/deliveries/{delivery}/cancel"): DELIVERING,
    ("GET", "/v1/endpoints"): DELIVERING,
    ("POST", "/v1/endpoints"): DELIVERING,
    ("GET", "/v1/endpoints/{endpoint}"): DELIVERING,
    ("PUT", "/v1/endpoints/{endpoint}"): DELIVERING,
    ("POST", "/v1/triggers/test"): DELIVERING,
    ("POST", "/v1/command"): ANY,
    ("GET", "/v1/api-keys"): ISSUING,
    ("POST", "/v1/api-keys"): ISSUING,
    ("DELETE", "/v1/api-keys/{id}"): ISSUING,
    ("POST", "/v1/api-keys/{id}/rotate"): ISSUING,
    ("GET", "/metrics"): OPERATING,
    ("GET", "/livez"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/docs"): OPEN,
}
"""Method and path of each route -> the scopes of which its caller must have one."""
PRIVATE: Header = (b"cache-control", b"private, no-cache")
"""Of what is read: it is its reader's alone, and is asked for again each time. Without it a cache that many share would
keep what was read with ``X-API-Key``, of which it knows nothing (RFC 9111 3.5).
"""


class Guard:
    """Plain ASGI of one route: notes who asks as :data:`CALLER`, lets nobody in who may not, and sends the answer.

    Raises:
        Problem: there is no API key, or not a good one; or the caller has made too many requests, or has too many
            under way.
        MissingScope: it has none of the scopes that the method asks for.
    """

    def __init__(self, endpoint: Endpoint, scopes: dict[str, Collection[str]]) -> None:
        self._endpoint = endpoint
        self._scopes = {method: frozenset(names) for method, names in scopes.items()}
        if "GET" in scopes:
            self._scopes["HEAD"] = self._scopes["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        wanted = self._scopes[scope["method"]]
        requests: Shares | None = None
        who = ""
        if wanted:
            if scope["method"] in READS:
                scope[ADDED].append(PRIVATE)
            state = scope["app"].state
            gate: Gate | None = state.gate
            caller = None if gate is None else gate.known(scope) or await gate.identify(scope)
            if caller is None:
                caller = anonymous(state.datastore)
            elif wanted.isdisjoint(caller.scopes):
                raise MissingScope(f"the API key lacks the scope {' or '.join(sorted(wanted))}")
            scope[CALLER] = caller
            who = caller.id or peer_of(scope)
            if state.rate is not None:
                scope[ADDED] += state.rate.take(who)
            requests = scope["app"].requests
            if requests is not None and not requests.take_now(who):
                raise Problem(
                    "overloaded",
                    "your other requests take your share of those that may be under way; nothing was done for this",
                )
        try:
            response = await self._endpoint(Request(scope, receive, send))
            await response(scope, receive, send)
        finally:
            if requests is not None:
                requests.give_back(who)


def guarded(route: Route) -> Route:
    """The route behind the guard, honouring idempotency keys.

    Raises:
        KeyError: :data:`SCOPES` does not say what it asks for.
    """
    methods = (route.methods or set()) - {"HEAD"}
    route.app = Guard(repeatable(route), {method: SCOPES[method, route.path] for method in methods})
    return route
