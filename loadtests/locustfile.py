"""HTTP load from many machines, with Locust: jobs made singly and in batches, worked off, and queried.

    make locust URL=http://127.0.0.1:8080                     # two workers on this machine, for half a minute
    locust -f loadtests/locustfile.py --master ...             # or as its documentation has it, on many

In its table each request counts; a refusal is a failure. ``HOOKLINE_API_KEY`` is shown to the server.
"""

from __future__ import annotations

import os
import random
from typing import Any

from locust import FastHttpUser, between, events, task

KEY = os.environ.get("HOOKLINE_LOAD_KEY", "locust")
CONTENT = "x" * 200
BATCH = 50
FAIL_SHARE = 0.05


class Caller(FastHttpUser):
    """What every user does: ask with the API key, and count what came of it."""

    abstract = True
    wait_time = between(0, 0.02)

    def on_start(self) -> None:
        self.headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get("HOOKLINE_API_KEY")) else {}

    def ask(self, path: str, body: dict[str, Any], *, expected: tuple[int, ...], name: str) -> Any:
        """The answer to a POST; another status than expected is a failure."""
        with self.client.post(path, json=body, headers=self.headers, name=name, catch_response=True) as response:
            if response.status_code not in expected:
                response.failure(f"{response.status_code}: {(response.text or '')[:200]}")
                return None
            return response.json()


def item() -> dict[str, Any]:
    """A new job."""
    return {"key": KEY, "content": CONTENT, "metadata": {"status": "not_started", "type": "report"}}


class Producer(Caller):
    """Makes jobs, mostly singly, and looks at them."""

    weight = 3

    @task(7)
    def create(self) -> None:
        self.ask("/v1/items", item(), expected=(201,), name="create")

    @task(1)
    def create_many(self) -> None:
        self.ask("/v1/items", {"items": [item() for _ in range(BATCH)]}, expected=(207,), name=f"create {BATCH}")

    @task(1)
    def query(self) -> None:
        body = {"where": {"status": "not_started"}, "limit": 20}
        self.ask(f"/v1/items/{KEY}/query", body, expected=(200,), name="query 20")


class Taker(Caller):
    """Works jobs off: one request ends those that it holds and claims more."""

    weight = 2

    def on_start(self) -> None:
        super().on_start()
        self.worker_id = f"locust-{os.getpid()}-{id(self)}"
        self.held: list[dict[str, Any]] = []

    @task
    def exchange(self) -> None:
        ends: dict[str, list[dict[str, Any]]] = {"complete": [], "fail": []}
        for held in self.held:
            shown = {"sortField": held["sortField"], "token": held["token"]}
            if random.random() < FAIL_SHARE:
                ends["fail"].append(shown | {"error": "one in twenty fails", "retryAfter": "100ms"})
            else:
                ends["complete"].append(shown)
        body = {"workerId": self.worker_id, **{verb: given for verb, given in ends.items() if given}}
        answer = self.ask(
            f"/v1/jobs/{KEY}/settle", body | {"claim": {"limit": BATCH}}, expected=(200, 207), name="exchange"
        )
        self.held = answer["claimed"]["items"] if answer else []

    def on_stop(self) -> None:
        given = [{"sortField": held["sortField"], "token": held["token"]} for held in self.held]
        if given:
            body = {"workerId": self.worker_id, "release": given}
            self.ask(f"/v1/jobs/{KEY}/settle", body, expected=(200, 207), name="release")


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    parser.set_defaults(host="http://127.0.0.1:8080")
