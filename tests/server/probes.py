"""A request for each route, operation and command, to see what becomes of it with one API key or another.

``KEY`` stands for an item key, ``TOKEN`` for the token of its started item, and ``API_KEY_ID`` for that of an API key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from hookline import Datastore, registry
from hookline.arguments import CreateArguments
from hookline.keyring import Keyring
from hookline_server.delivery import Deliveries
from hookline_server.endpoint import Endpoint
from hookline_server.event import Delivery, Target, endpoint_of
from hookline_server.lane import Lane
from hookline_server.orchestrations import Orchestration, Orchestrations
from hookline_server.schedules import Schedule, Schedules

CANARY = "canary"
"""Stands in all that :func:`fill` writes."""
URL = f"https://{CANARY}.example/run"


@dataclass(frozen=True)
class Probe:
    """One request. ``scopes`` are those of which each alone will do. ``many``: the answer has an outcome for each part,
    or lists just what may be seen.
    """

    method: str
    route: str
    path: str
    body: Any = None
    scopes: tuple[str, ...] = ("admin",)
    media_type: str = "application/json"
    accept: str = "application/json"
    many: bool = False
    unlimited: bool = False
    """It is not for API keys that are limited to item keys."""
    operating: bool = False
    """It tells of all namespaces, and is for those who operate the server."""

    def __str__(self) -> str:
        told = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return f"{self.method} {self.path} {'' if self.body is None else told[:60]}"

    @property
    def named(self) -> bool:
        """Whether it names an item key."""
        return "KEY" in f"{self.path}{self.body}".replace("API_KEY_ID", "")

    def request(self, key: str, token: str, api_key_id: str) -> tuple[str, bytes | None, dict[str, str]]:
        """Path, body and headers of the request for an item key."""
        body = self.body if isinstance(self.body, str) or self.body is None else json.dumps(self.body)
        headers = {"Content-Type": self.media_type, "Accept": self.accept}
        sent = None if body is None else body.replace("KEY", key).replace("TOKEN", token).encode()
        return self.path.replace("API_KEY_ID", api_key_id).replace("KEY", key), sent, headers


READ, WRITE, WORK, ADMIN = ("read", "write", "admin"), ("write", "admin"), ("work", "admin"), ("admin",)
_LINES = "application/x-ndjson"
_NEW = {"key": "KEY", "sortField": "new", "content": 1}
_ITEM = "/v1/items/{key}/{sort_field:path}"
_WORKERS = "/v1/workers/{key}/{worker_id:path}"
_TOLD = {"host": "h", "pid": 1, "handlers": ["f"], "concurrency": 1, "inFlight": 0}


def _batch(scopes: tuple[str, ...], **operation: Any) -> Probe:
    operations = [{"key": "KEY", "sortField": "a", **operation}]
    return Probe("POST", "/v1/items:batch", "/v1/items:batch", {"operations": operations}, scopes)


def _job(verb: str, body: Any, scopes: tuple[str, ...]) -> Probe:
    return Probe("POST", f"/v1/jobs/{{key}}/{verb}", f"/v1/jobs/KEY/{verb}", body, scopes)


def _rules(kind: str, rule: dict[str, Any]) -> list[Probe]:
    path, stored = f"/v1/{kind}/{{name}}", f"/v1/{kind}/rule-KEY"
    return [
        Probe("GET", f"/v1/{kind}", f"/v1/{kind}", scopes=ADMIN, many=True),
        Probe("GET", path, stored, scopes=ADMIN),
        Probe("PUT", path, f"/v1/{kind}/new", rule, ADMIN),
        Probe("PUT", path, stored, {"key": "reports.a"}, ADMIN),
        Probe("DELETE", path, stored, scopes=ADMIN),
        *(Probe("POST", f"{path}/{verb}", f"{stored}/{verb}", scopes=ADMIN) for verb in ("run", "enable", "disable")),
        *(Probe("GET", f"{path}/{verb}", f"{stored}/{verb}", scopes=ADMIN) for verb in ("runs", "next")),
    ]


_ENDPOINT = endpoint_of(URL)
_DELIVERY, _DEAD = (f"{_ENDPOINT}.{CANARY}-0-{number}-0" for number in (1, 2))
_WEBHOOKS: list[Any] = [
    ("GET", "/v1/deliveries", "/v1/deliveries"),
    ("GET", "/v1/deliveries/{delivery}", f"/v1/deliveries/{_DELIVERY}"),
    ("POST", "/v1/deliveries/redrive", "/v1/deliveries/redrive", {}),
    ("POST", "/v1/deliveries/cancel", "/v1/deliveries/cancel", {}),
    ("POST", "/v1/deliveries/{delivery}/redrive", f"/v1/deliveries/{_DEAD}/redrive"),
    ("POST", "/v1/deliveries/{delivery}/cancel", f"/v1/deliveries/{_DELIVERY}/cancel"),
    ("POST", "/v1/triggers/test", "/v1/triggers/test", {"url": "http://127.0.0.1:1/"}),
    ("GET", "/v1/endpoints", "/v1/endpoints"),
    ("POST", "/v1/endpoints", "/v1/endpoints", {"url": "https://another.example/"}),
    ("GET", "/v1/endpoints/{endpoint}", f"/v1/endpoints/{_ENDPOINT}"),
    ("PUT", "/v1/endpoints/{endpoint}", f"/v1/endpoints/{_ENDPOINT}", {"status": "paused"}),
]

PROBES = [
    Probe("POST", "/v1/items", "/v1/items", _NEW, WRITE),
    Probe("POST", "/v1/items", "/v1/items", {"items": [_NEW]}, WRITE),
    Probe("POST", "/v1/items", "/v1/items", json.dumps(_NEW), WRITE, _LINES, many=True),
    Probe("GET", "/v1/items/{key}", "/v1/items/KEY", scopes=READ),
    Probe("GET", "/v1/items/{key}", "/v1/items/KEY", scopes=READ, accept=_LINES),
    Probe("POST", "/v1/items/{key}/query", "/v1/items/KEY/query", {"where": {}}, READ),
    Probe("POST", "/v1/items/{key}/query", "/v1/items/KEY/query", {"count": True}, READ),
    Probe("POST", "/v1/items/{key}/query", "/v1/items/KEY/query", {}, READ, accept=_LINES),
    Probe("GET", _ITEM, "/v1/items/KEY/a", scopes=READ),
    Probe("HEAD", _ITEM, "/v1/items/KEY/a", scopes=READ),
    Probe("GET", _ITEM, "/v1/items/KEY/a?wait=0", scopes=READ),
    Probe("PUT", _ITEM, "/v1/items/KEY/a", {"content": 2}, WRITE),
    Probe("PATCH", _ITEM, "/v1/items/KEY/a", {"metadata": {"n": 2}}, WRITE),
    Probe("PATCH", _ITEM, "/v1/items/KEY/a", {"metadata": {"n": 2}}, WRITE, "application/merge-patch+json"),
    Probe("DELETE", _ITEM, "/v1/items/KEY/a", scopes=WRITE),
    Probe("POST", "/v1/items/{key}/delete", "/v1/items/KEY/delete", {"where": {}}, WRITE),
    _batch(WRITE, op="create", sortField="new"),
    _batch(WRITE, op="update", metadata={"n": 3}),
    _batch(WRITE, op="delete"),
    _batch(READ, op="get"),
    _job("claim", {"workerId": "w"}, WORK),
    _job("settle", {"complete": [{"sortField": "held", "token": "TOKEN"}]}, WORK),
    _job("settle", {"workerId": "w", "claim": {"limit": 2}}, WORK),
    _job("cancel", {}, WRITE),
    _job("redrive", {}, WRITE),
    _job("pause", None, ADMIN),
    _job("resume", None, ADMIN),
    Probe("GET", "/v1/keys", "/v1/keys", scopes=READ, many=True),
    Probe("GET", "/v1/keys/{key}/settings", "/v1/keys/KEY/settings", scopes=READ),
    Probe("PUT", "/v1/keys/{key}/settings", "/v1/keys/KEY/settings", {"maxAttempts": 3}, ADMIN),
    Probe("PATCH", "/v1/keys/{key}/settings", "/v1/keys/KEY/settings", {"maxAttempts": 3}, ADMIN),
    Probe("GET", "/v1/workers", "/v1/workers", scopes=READ, many=True),
    Probe("PUT", _WORKERS, "/v1/workers/KEY/w", _TOLD, WORK),
    Probe("DELETE", _WORKERS, "/v1/workers/KEY/w", scopes=WORK),
    Probe("POST", _WORKERS, "/v1/workers/KEY/w", {"signal": "quiet"}, ADMIN),
    *_rules("orchestrations", {"key": "KEY", "limit": 2}),
    *_rules("schedules", {"key": "KEY", "cron": "0 9 * * *"}),
    Probe("GET", "/v1/api-keys", "/v1/api-keys", unlimited=True),
    Probe("POST", "/v1/api-keys", "/v1/api-keys", {"name": "new"}, unlimited=True),
    Probe("DELETE", "/v1/api-keys/{id}", "/v1/api-keys/API_KEY_ID", unlimited=True),
    Probe("POST", "/v1/api-keys/{id}/rotate", "/v1/api-keys/API_KEY_ID/rotate", {"grace": "1h"}, unlimited=True),
    *(replace(Probe(*probe), unlimited=True) for probe in _WEBHOOKS),
    Probe("GET", "/metrics", "/metrics", unlimited=True, operating=True),
    Probe("GET", "/livez", "/livez", scopes=()),
    Probe("GET", "/readyz", "/readyz", scopes=()),
    Probe("GET", "/openapi.json", "/openapi.json", scopes=()),
    Probe("GET", "/docs", "/docs", scopes=()),
]

_ONE = "key: KEY\nsortField: a\n"
_HELD = "key: KEY\nsortField: held\ntoken: TOKEN\n"
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "create": ("create item with:\nkey: KEY\nsortField: new\n", WRITE),
    "update": (f"update item with:\n{_ONE}metadata: {{n: 4}}\n", WRITE),
    "query": ("query items where key: KEY\n", READ),
    "count": ("count items where key: KEY\n", READ),
    "get": (f"get item with:\n{_ONE}", READ),
    "delete": (f"delete item with:\n{_ONE}", WRITE),
    "delete items": ("delete items where:\nkey: KEY\nwhere: {}\n", WRITE),
    "claim": ("claim items where key: KEY\n", WORK),
    "complete": (f"complete item with:\n{_HELD}", WORK),
    "fail": (f"fail item with:\n{_HELD}", WORK),
    "release": (f"release item with:\n{_HELD}", WORK),
    "extend": (f"extend item with:\n{_HELD}", WORK),
    "cancel": ("cancel item with:\nkey: KEY\nsortField: waiting\n", WRITE),
    "cancel items": ("cancel items where key: KEY\n", WRITE),
    "redrive": ("redrive item with:\nkey: KEY\nsortField: dead\n", WRITE),
    "redrive items": ("redrive items where key: KEY\n", WRITE),
    "wait": (f"wait for item with:\n{_ONE}wait: 0\n", READ),
    "pause": ("pause key: KEY\n", ADMIN),
    "resume": ("resume key: KEY\n", ADMIN),
    "show keys": ("show keys\n", READ),
    "show settings": ("show settings of key: KEY\n", READ),
    "change settings": ("change settings of key: KEY and maxAttempts: 4\n", ADMIN),
    **{
        f"{word} {noun}": (f"{word} {noun} with name: rule-KEY\n", ADMIN)
        for word in ("show", "run", "enable", "disable", "delete")
        for noun in ("orchestration", "schedule")
    },
    "create orchestration": ("create orchestration with name: new and key: KEY\n", ADMIN),
    "create schedule": ("create schedule with name: new and key: KEY\n", ADMIN),
    "show orchestrations": ("show orchestrations\n", ADMIN),
    "show schedules": ("show schedules\n", ADMIN),
}
"""A text for each verb of the command language."""

PROBES += [
    Probe("POST", "/v1/command", "/v1/command", text, scopes, "text/plain", many="KEY" not in text)
    for text, scopes in COMMANDS.values()
]
PROBES += [
    Probe("POST", "/v1/command", "/v1/command", "get items with:\nkey: KEY\nsortFields: ['a']\n", READ, "text/plain")
]


async def fill(datastore: Datastore, key: str) -> tuple[str, str]:
    """Write something for every probe to find -> the token of the started item, and the id of an API key."""
    trigger = [{"url": URL, "apiKey": f"{CANARY}-api-key", "events": ["deleted"]}]
    told: CreateArguments = {"content": CANARY, "trigger_urls": trigger}
    await datastore.create(key, "a", **told)
    await datastore.create(key, "held", metadata={"status": "not_started", "told": CANARY})
    (held,) = (await datastore.claim(key, worker_id=CANARY)).items
    await datastore.create(key, "waiting", metadata={"status": "not_started", "told": CANARY})
    await datastore.create(key, "dead", metadata={"status": "failed", "told": CANARY})
    await datastore.configure(key, max_attempts=7, trigger_urls=trigger)
    await datastore.heartbeat(registry.Presence(key, "w", CANARY, 1, (CANARY,), 1, 0))
    rule = Orchestration(key=key, where={"told": CANARY})
    await Orchestrations(datastore).put(f"rule-{key}", rule)
    schedule = Schedule(key=key, content=CANARY, cron="0 9 * * *", trigger_urls=trigger)
    await Schedules(datastore).put(f"rule-{key}", schedule)
    for number, status in ((1, None), (2, "failed")):
        payload = {"event": "updated", "occurredAt": "2027-01-01T00:00:00Z", "told": CANARY}
        delivery = Delivery(f"{CANARY}-0-{number}-0", key, "a", payload, Target(URL, b""), CANARY)
        lane = Lane(Endpoint(delivery.target.endpoint_id), 1)
        await Deliveries(datastore).keep(lane, delivery, status=status)
    keyring = Keyring(datastore.connection, datastore.secrets)
    made, _ = await keyring.create(datastore.settings.namespace, name=CANARY)
    return held.token or "", made.id
