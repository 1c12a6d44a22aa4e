"""``/metrics``: names, values after real traffic, bounds, several processes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio as aioredis
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from api import Api, asking
from conftest import Clock, end, wait_until
from hookline import Datastore, SecretBox, Settings
from hookline.embedded import find_server
from hookline.errors import Unavailable
from hookline.figures import FAMILIES, Family
from hookline_server import fresh
from hookline_server.app import create_app
from hookline_server.egress import Egress
from hookline_server.endpoint import Endpoints
from hookline_server.namespaces import Namespaces
from hookline_server.peers import Peers
from hookline_server.relay import Relay
from process import running_store, serving
from receiver import receiving

pytestmark = pytest.mark.settings(delivery_schedule=(600,))

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


class Page:
    """One scrape."""

    def __init__(self, text: str, *, openmetrics: bool = False) -> None:
        self.text = text
        self.families = {family.name: family for family in (read_openmetrics if openmetrics else read_text)(text)}
        self.samples: Samples = {}
        for family in self.families.values():
            for sample in family.samples:
                self.samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """The one value at these labels, or the sum of those that have them; 0 where there is none."""
        wanted = set(labels.items())
        return sum(value for had, value in self.samples.get(name, {}).items() if wanted <= set(had))


async def scrape(api: Api, accept: str = "*/*") -> Page:
    """A page that no earlier one is kept of."""
    api.app.state.metrics._rows._kept = None
    answer = await api("GET", "/metrics", headers={"Accept": accept})
    assert answer.status == 200
    return Page(answer.body.decode(), openmetrics="openmetrics" in answer.headers["content-type"])


async def test_requests_are_counted_by_route(api: Api) -> None:
    before = await scrape(api)
    for name in ("a", "b"):
        answer = await api("POST", "/v1/items", {"key": "jobs", "sortField": name, "content": "x" * 1000})
    await api("GET", "/v1/items/jobs/a")
    await api("GET", "/v1/items/jobs/none/at/all")
    await api("GET", "/nothing/here")
    await api("PROPFIND", "/v1/items")
    after = await scrape(api)

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    requests = "hookline_http_requests_total"
    assert grown(requests, route="/v1/items", method="POST", status="2xx") == 2
    assert grown(requests, route="/v1/items/{key}/{sort_field:path}", method="GET", status="2xx") == 1
    assert grown(requests, route="/v1/items/{key}/{sort_field:path}", method="GET", status="4xx") == 1
    assert grown(requests, route="unmatched", method="GET", status="4xx") == 1
    assert grown(requests, route="/v1/items", method="other", status="4xx") == 1
    assert "PROPFIND" not in after.text
    assert "jobs/none" not in after.text
    duration = "hookline_http_request_duration_seconds"
    assert grown(f"{duration}_count", route="/v1/items", method="POST") == 2
    assert 0 < grown(f"{duration}_sum", route="/v1/items", method="POST") < 60
    assert grown(f"{duration}_bucket", route="/v1/items", method="POST", le="+Inf") == 2
    assert 2000 < grown("hookline_http_request_bytes_total", route="/v1/items", method="POST") < 3000
    assert 2 * len(answer.body) == grown("hookline_http_response_bytes_total", route="/v1/items", method="POST")
    assert after.value("hookline_http_requests_in_flight") == 1  # that of the scrape


async def test_calls_of_the_store_are_counted_by_script(api: Api, raw: aioredis.Redis) -> None:
    before = await scrape(api)
    items = [{"key": "jobs", "sortField": f"{n}"} for n in range(60)]
    assert (await api("POST", "/v1/items", {"items": items})).status == 207
    await raw.function_flush()
    await api("DELETE", "/v1/items/jobs/1")
    after = await scrape(api)

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert 1 <= grown("hookline_store_call_duration_seconds_count", script="create") <= 3
    assert grown("hookline_store_call_operations_sum", script="create") == 60
    assert grown("hookline_store_call_duration_seconds_count", script="delete") == 1


async def test_what_the_store_holds(api: Api, datastore: Datastore, clock: Clock) -> None:
    for n in range(3):
        await datastore.create("jobs", f"{n}", metadata={"status": "not_started", "max_attempts": 1})
    await datastore.create("jobs", "later", metadata={"status": "scheduled", "scheduled_at": "+1h"})
    await datastore.create("jobs", "own", metadata={"status": "in review"})
    await datastore.create("documents", "plain", content={})
    await datastore.claim("jobs", worker_id="w", limit=1)
    await datastore.pause("documents")
    page = await scrape(api)
    items = {status: page.value("hookline_items", namespace="default", key="jobs", status=status)
             for status in ("not_started", "scheduled", "started", "completed", "other")}  # fmt: skip
    assert items == {"not_started": 2, "scheduled": 1, "started": 1, "completed": 0, "other": 1}
    assert "in review" not in page.text
    assert page.value("hookline_items", key="documents", status="other") == 1
    assert page.value("hookline_claimable_items", namespace="default", key="jobs") == 2
    assert 0 <= page.value("hookline_claimable_age_seconds", key="jobs") < 60
    assert page.value("hookline_key_paused", key="documents") == 1
    assert page.value("hookline_key_paused", key="jobs") == 0
    assert page.value("hookline_store_up", namespace="default") == 1
    assert page.value("hookline_store_memory_bytes") > 100_000
    clock.advance(-3600)
    clock.ms = int(page.value("process_start_time_seconds", process="0") * 1000) + 7_200_000
    page = await scrape(api)
    assert page.value("hookline_claimable_items", key="jobs") == 4
    assert 3600 < page.value("hookline_claimable_age_seconds", key="jobs") < 3 * 3600
    await datastore.sweep()
    page = await scrape(api)
    assert page.value("hookline_expired_locks_total", key="jobs") == 1
    assert page.value("hookline_items", key="jobs", status="failed") == 1


async def test_webhooks_from_the_outbox_to_the_dead_letters(datastore: Datastore, api: Api) -> None:
    async with receiving() as receiver:
        for name in ("taken", "retried", "dead"):
            await datastore.create("jobs", name, trigger_urls={receiver.url: "key"})
            await datastore.update("jobs", name, metadata={"n": 1})
        before = await scrape(api)
        assert before.value("hookline_outbox_events", namespace="default") == 3
        assert before.value("hookline_outbox_lag_seconds") > 0
        receiver.statuses = [204, 500, 410]
        egress = Egress(allow_loopback=True, deadline=2)
        relaying = asyncio.create_task(Relay(datastore, egress, "relay").run())
        try:
            await receiver.wait_for(3)
            await wait_until(lambda: _emptied(api))
            after = await scrape(api)
        finally:
            await end(relaying)
            await egress.close()

    def attempts(outcome: str) -> float:
        name = "hookline_delivery_attempts_total"
        return after.value(name, outcome=outcome) - before.value(name, outcome=outcome)

    assert (attempts("2xx"), attempts("5xx"), attempts("4xx")) == (1, 1, 1)
    assert after.value("hookline_outbox_lag_seconds") == 0
    assert after.value("hookline_deliveries_in_flight", namespace="default") == 0
    states = {
        state: after.value("hookline_deliveries", state=state) for state in ("waiting", "due", "started", "failed")
    }
    assert states == {"waiting": 1, "due": 0, "started": 0, "failed": 1}
    assert after.value("hookline_endpoints_with_deliveries") == 1


async def test_endpoints_by_state(datastore: Datastore, api: Api) -> None:
    endpoints = Endpoints(datastore)
    for name, changes in {
        "a": {},
        "b": {"breaker": "open"},
        "c": {"breaker": "open", "status": "disabled"},
        "d": {"status": "paused"},
    }.items():
        await endpoints.note(name, f"http://{name}.example/run", changes)
    page = await scrape(api)
    states = ("active", "open", "paused", "disabled")
    assert [page.value("hookline_endpoints", namespace="default", state=state) for state in states] == [1, 1, 1, 1]


async def _emptied(api: Api) -> bool:
    return (await scrape(api)).value("hookline_outbox_events") == 0


async def test_keys_have_a_bound(api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline_server.survey.KEYS_MAX", 3)
    for n in range(5):
        await datastore.create(f"key-{n}", "a", metadata={"status": "not_started"})
    page = await scrape(api)
    assert {dict(labels)["key"] for labels in page.samples["hookline_claimable_items"]} == {"key-0", "key-1", "key-2"}
    assert page.value("hookline_keys_left_out", namespace="default") == 2


def scaling_query() -> str:
    """What KEDA asks, as the page of operations has it."""
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    return " ".join(re.findall(r"query: >-\n(.*?)\n +threshold", text, re.DOTALL)[0].split())


def value_of(query: str, page: Page) -> float | None:
    """What Prometheus makes of a query of ``max``, ``+``, ``0 *`` and ``or``; None: no value."""

    def value(term: str) -> float | None:
        match = re.fullmatch(r"(0 \* )?max\((\w+)\{(.*)\}(?: == (\d+))?\)", term)
        assert match, term
        labels = set(re.findall(r'(\w+)="(.*?)"', match[3]))
        found = [value for had, value in page.samples.get(match[2], {}).items() if labels <= set(had)]
        most = max([value for value in found if match[4] is None or value == float(match[4])], default=None)
        return most if most is None or not match[1] else 0 * most

    for alternative in query.split(" or "):
        values = [value(term) for term in alternative.split(" + ")]
        if None not in values:
            return sum(filter(None, values))
    return None


async def test_workers_are_scaled_by_what_is_known(
    api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key without items needs none; of one that is not told of, nobody knows."""
    monkeypatch.setattr("hookline_server.survey.KEYS_MAX", 3)
    query = scaling_query()
    assert value_of(query, await scrape(api)) == 0
    for key in ("a", "b", "jobs"):
        await datastore.create(key, "1", metadata={"status": "not_started"})
    assert value_of(query, await scrape(api)) == 1
    await datastore.create("c", "1", metadata={"status": "not_started"})
    assert value_of(query, await scrape(api)) is None
    monkeypatch.setattr("hookline_server.survey.KEYS_MAX", 100)
    await datastore.claim("jobs", worker_id="w")
    assert value_of(query, await scrape(api)) == 1
    await datastore.delete("jobs", "1")
    assert value_of(query, await scrape(api)) == 0


async def test_namespaces_have_a_bound(api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline_server.survey.NAMESPACES_MAX", 1)

    async def both() -> list[Datastore]:
        return [datastore, datastore]

    monkeypatch.setattr(api.app.state.metrics, "_datastores", both)
    assert (await scrape(api)).value("hookline_namespaces_left_out") == 1


async def test_a_namespace_that_nobody_uses_is_told_of(
    api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Namespaces(datastore) as before:
        await (await before.open("acme")).create("jobs", "a", metadata={"status": "not_started"})
    async with Namespaces(datastore) as namespaces:
        monkeypatch.setattr(api.app.state.metrics, "_datastores", namespaces.everyone)
        page = await scrape(api)
        assert page.value("hookline_claimable_items", namespace="acme", key="jobs") == 1
        assert page.samples["hookline_store_up"] == {
            (("namespace", "acme"),): 1, (("namespace", "default"),): 1,
        }  # fmt: skip
        monkeypatch.setattr(datastore.connection, "command_on", unavailable)
        assert len((await scrape(api)).samples["hookline_store_up"]) == 2


async def unavailable(*_: object) -> None:
    raise Unavailable("gone")


def test_rows_have_a_bound(families: Mapping[str, Family], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.figures.ROWS_MAX", 2)
    for label in ("a", "b", "c", "d", "a"):
        families["counter"].add(label)
        families["histogram"].observe(1, label)
    assert families["counter"].rows == {("a",): [2], ("b",): [1], ("other",): [2]}
    assert {labels: sum(row[1:]) for labels, row in families["histogram"].rows.items()} == {
        ("a",): 2, ("b",): 1, ("other",): 2,
    }  # fmt: skip


async def test_a_page_is_good_for_a_while(api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "FRESH_S", 60.0)
    await scrape(api)
    before = FAMILIES["hookline_store_call_duration_seconds"].row("depth")[1:]
    for _ in range(3):
        assert (await api("GET", "/metrics")).status == 200
    assert FAMILIES["hookline_store_call_duration_seconds"].row("depth")[1:] == before


async def test_both_formats_parse_and_say_the_same(api: Api) -> None:
    text, open_metrics = await scrape(api), await scrape(api, OPENMETRICS)
    assert open_metrics.text.endswith("# EOF\n")
    assert set(open_metrics.families) == {name.removesuffix("_total") for name in text.families}
    for name, family in FAMILIES.items():
        assert (open_metrics.families[name].documentation, open_metrics.families[name].type) == (
            family.text,
            "counter" if family.kind == "reading" else family.kind,
        )


async def test_a_page_is_compressed_for_who_takes_that(api: Api) -> None:
    plain = await api("GET", "/metrics", headers={"Accept-Encoding": "identity"})
    packed = await api("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    # The client inflates what it gets.
    assert int(packed.headers["content-length"]) < len(packed.body) / 3
    assert Page(packed.body.decode()).families.keys() == Page(plain.body.decode()).families.keys()
    assert {answer.headers["vary"] for answer in (plain, packed)} == {"accept, accept-encoding"}


async def test_without_a_store_the_processes_still_tell(tmp_path: Path) -> None:
    server = find_server()
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(running_store(str(server), tmp_path / "store"))
        settings = replace(Settings(), data=tmp_path, call_timeout=0.2)
        box = SecretBox(bytes(32))
        datastore = await stack.enter_async_context(Datastore(store.url, settings, box))
        api = await stack.enter_async_context(asking(create_app(datastore)))
        page = await scrape(api)
        assert (page.value("hookline_store_up"), value_of(scaling_query(), page)) == (1, 0)
        store.process.kill()
        await store.process.wait()
        failures = (await scrape(api)).value("hookline_store_call_failures_total", script="create")
        assert (await api("POST", "/v1/items", {"key": "jobs"})).status == 503
        page = await scrape(api)
    assert page.value("hookline_store_up", namespace="default") == 0
    assert "hookline_claimable_items" not in page.samples
    assert value_of(scaling_query(), page) is None
    assert page.value("hookline_store_call_failures_total", script="create") == failures + 1
    assert page.value("process_resident_memory_bytes", process="0") > 1e6


PROCESS = """
import sys
from pathlib import Path
from hookline.figures import Family
from hookline_server.namespaces import Namespaces
from hookline_server.peers import Peers
counter, gauge, histogram = (Family(kind, f"test_{kind}", "", ("l",)) for kind in ("counter", "gauge", "histogram"))
peers = Peers(Path(sys.argv[1]), 1)
counter.add("a", amount=2)
gauge.add("a")
histogram.observe(0.3, "a")
peers.write()
"""


@pytest.fixture
def families() -> Iterator[Mapping[str, Family]]:
    kinds: Any = ("counter", "gauge", "histogram")
    yield {kind: Family(kind, f"test_{kind}", "of a test", ("l",)) for kind in kinds}
    for kind in kinds:
        del FAMILIES[f"test_{kind}"]


async def test_any_process_answers_for_all(
    api: Api, tmp_path: Path, families: Mapping[str, Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.app.state.metrics, "_peers", Peers(tmp_path, 0))
    families["counter"].add("a", amount=5)
    families["gauge"].add("a")
    assert (await scrape(api)).value("test_counter_total", l="a") == 5
    for restarts in range(2):  # the second takes the place of the first
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, str(tmp_path))
        assert await process.wait() == 0
        page = await scrape(api)
        assert page.value("test_counter_total", l="a") == 5 + 2 * (restarts + 1)
        assert page.value("test_histogram_count", l="a") == restarts + 1
        assert page.value("test_gauge", l="a") == 2
        assert page.value("hookline_processes") == 2
        assert page.value("process_resident_memory_bytes", process="1") > 1e6
    assert {path.name for path in tmp_path.glob("*.figures")} == {"1.figures"}
    monkeypatch.setattr("hookline_server.peers._STALE_S", 0)
    page = await scrape(api)
    assert (page.value("test_counter_total", l="a"), page.value("test_gauge", l="a")) == (9, 1)
    (tmp_path / "1.figures").write_bytes(b"of another release")
    assert (await scrape(api)).value("test_counter_total", l="a") == 5


async def test_two_workers_tell_the_same(tmp_path: Path) -> None:
    """Whichever of them answers: what both have served, exactly, once each has told the other."""
    async with serving(tmp_path / "data", "--workers", "2") as server:
        for _ in range(20):
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{server.url}/v1/items", json={"key": "jobs"}) as response,
            ):
                assert response.status == 201
        seen: list[float] = []

        async def agreed() -> bool:
            async with aiohttp.ClientSession() as session, session.get(f"{server.url}/metrics") as response:
                page = Page(await response.text())
            seen.append(page.value("hookline_http_requests_total", route="/v1/items", method="POST", status="2xx"))
            assert page.value("hookline_items", namespace="default", key="jobs", status="other") == 20
            return seen[-5:] == [20] * 5 and page.value("hookline_processes") == 2

        await wait_until(agreed, seconds=20)
    assert max(seen) == 20


async def test_a_process_writes_in_the_end_too(tmp_path: Path, families: Mapping[str, Family]) -> None:
    writing = asyncio.create_task(Peers(tmp_path, 1).run())
    await wait_until((tmp_path / "1.figures").exists)
    families["counter"].add("a", amount=7)
    await end(writing)
    (dump,) = Peers(tmp_path, 0).read()
    assert dump["test_counter"] == [(("a",), [7.0])]


def test_the_page_of_operations_names_every_figure() -> None:
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    named = set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE))
    there = {name + ("_total" if family.kind in ("counter", "reading") else "") for name, family in FAMILIES.items()}
    assert named & {name for name in named if name.startswith(("hookline_", "process_"))} == {
        name for name in there if not name.startswith("test_")
    }
    for line in text.splitlines():
        if (match := re.match(r"\| `([a-z_]+)` \| ([a-z, ]*) \| (.*) \|", line)) and match[1].removesuffix(
            "_total"
        ) in FAMILIES:
            family = FAMILIES[match[1].removesuffix("_total")]
            assert (tuple(filter(None, match[2].split(", "))), match[3]) == (family.labels, family.text), line


def test_the_examples_ask_for_figures_that_there_are() -> None:
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    asked = re.findall(r"(hookline_[a-z_]+)\{([^}]*)\}", text)
    assert asked
    for name, selector in asked:
        family = FAMILIES[name.removesuffix("_total")]
        assert {part.split("=")[0].rstrip("~!") for part in selector.split(",")} <= set(family.labels), name
    alerts = re.findall(r"### Alerts\n(.*?)\n### ", text, re.DOTALL)[0]
    assert {name.removesuffix("_total") for name in re.findall(r"hookline_[a-z_]+", alerts)} <= set(FAMILIES)
