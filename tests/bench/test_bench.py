"""The load tests run and lose nothing, at sizes so small that their figures mean nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import wait_until
from hookline import Datastore, EmbeddedStore
from hookline.errors import HooklineError, Invalid
from hookline_bench.compare import compared
from hookline_bench.direct import Direct
from hookline_bench.figure import Results
from hookline_bench.ground import grounds
from hookline_bench.run import SCENARIOS
from hookline_bench.scenarios import fill_with
from hookline_bench.soak import Sample, grown
from hookline_bench.usage import children
from hookline_bench.works import Stage, enqueue
from process import within

SMALL = ("--seconds", "0.05", "--jobs", "100", "--processes", "1", "--rates", "100")


async def bench(*args: str) -> tuple[int, str]:
    """``hookline bench`` -> its exit code, and what it said to whoever waits."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", "bench", *args),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await child.communicate()
    assert child.returncode is not None
    return child.returncode, said.decode()


@pytest.mark.timeout(300)
async def test_each_scenario_runs_and_nothing_is_lost(tmp_path: Path) -> None:
    """Each turn holds the counts in the store against what was done, and the run fails where they differ."""
    code, said = await bench(*SMALL, "--out", str(tmp_path))
    assert code == 0, said
    results = Results.read(tmp_path / "results.json")
    measured = {(figure.scenario, figure.way) for figure in results.figures}
    assert measured == {(name, way) for name in SCENARIOS for way in ("store", "http")} - {("memory", "http")}
    assert all(figure.value > 0 and figure.floors for figure in results.figures)
    assert {"machine", "versions", "commit", "durability"} <= results.made.keys()
    report = (tmp_path / "report.md").read_text()
    charts = sorted(path.name for path in tmp_path.glob("*.png"))
    assert charts == ["latency.png", "rates-http.png", "rates-store.png"]
    assert all(chart in report for chart in charts)
    rows = compared(results, results).splitlines()
    assert sum(row.count("| 1.00 |") > 0 for row in rows) == len(results.figures)


async def test_what_is_missing_is_told(store: EmbeddedStore) -> None:
    async with grounds(store.url, "always") as ground:
        await fill_with(Direct(ground.datastore), "jobs", 3)
        await ground.count("jobs", items=3, not_started=3, started=0)
        with pytest.raises(HooklineError, match="expected 4 items of jobs, found 3"):
            await ground.count("jobs", items=4)


async def test_a_namespace_with_data_is_left_alone(store: EmbeddedStore) -> None:
    async with grounds(store.url, "always") as ground:
        await fill_with(Direct(ground.datastore), "jobs", 1)
        with pytest.raises(HooklineError, match="namespace bench is empty"):
            async with grounds(store.url, "always"):
                pass
        await ground.count("jobs", items=1)
    async with grounds(store.url, "always") as ground:
        await ground.count("jobs", items=0)


async def test_only_this_machine_is_loaded() -> None:
    with pytest.raises(HooklineError, match="on this machine"):
        async with grounds("redis://192.0.2.1:6379", "always"):
            pass


async def test_rates_are_above_zero_and_one_arrives_at_least(tmp_path: Path) -> None:
    for bad in ("0", "-1", "nan", "100,inf"):
        code, said = await within("bench", "--rates", bad)
        assert (code, "--rates: expected numbers above 0" in said) == (2, True), said
    code, said = await bench("--scenarios", "latency", "--ways", "store", *SMALL[:-1], "1", "--out", str(tmp_path))
    assert code == 0, said


def test_a_file_that_is_no_results(tmp_path: Path) -> None:
    (other := tmp_path / "other.json").write_text(json.dumps({"schema": 1}))
    with pytest.raises(Invalid, match="expected results of hookline bench"):
        Results.read(other)


@pytest.mark.timeout(300)
async def test_each_size_is_measured(tmp_path: Path) -> None:
    sizes = ("--connections", "1,20", "--partitions", "1,3", "--turns", "1", "--seconds", "0.05", "--jobs", "100")
    code, said = await bench("scale", *sizes, "--out", str(tmp_path))
    assert code == 0, said
    results = Results.read(tmp_path / "results.json")
    swept = Counter(figure.scenario for figure in results.figures)
    assert swept == {"connections": 2, "partitions": 3 * 2, "durability": 3}
    assert all(figure.value > 0 and figure.floors for figure in results.figures)
    assert results.made["server_mib"].keys() == {"1", "20"}
    assert "Memory of the server process in MiB" in (tmp_path / "report.md").read_text()


@pytest.mark.timeout(300)
async def test_a_soak_completes_every_job_and_finds_no_flaw(tmp_path: Path) -> None:
    code, said = await bench("soak", "--minutes", "0.03", "--fsync", "no", "--out", str(tmp_path))
    assert code == 0, said
    soaked = json.loads((tmp_path / "soak.json").read_text())
    assert soaked["flaws"] == []
    assert soaked["created"] > 0
    assert soaked["samples"]
    assert (tmp_path / "soak.png").stat().st_size > 0


async def test_one_that_is_ended_ends_what_it_has_started(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", "bench", "soak", "--out", str(tmp_path)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        # The store, a load process and a server.
        started = await wait_until(lambda: len(found := children(child.pid)) == 3 and found, seconds=60)
    finally:
        child.terminate()
        try:
            code = await asyncio.wait_for(child.wait(), 30)
        except TimeoutError:
            child.kill()
            raise
    assert code == 130
    await wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))


def test_memory_that_grows_is_a_flaw() -> None:
    flat = [Sample(minute, 100, 1, 2, 10, 50) for minute in range(16)]
    assert grown(flat) == []
    assert grown(flat[:6]) == []
    (said,) = grown([*flat[:12], *(replace(sample, store_mib=20) for sample in flat[12:])])
    assert said == "memory of the store has grown from 10.0 to 20.0 MiB"


async def test_something_is_done_however_late_it_begins(datastore: Datastore) -> None:
    """A load whose time is over as it begins must not end with a rate of nothing, nor a floor of it."""
    stage = Stage(Direct(datastore), datastore, "jobs", seconds=0.0, count=1)
    assert (await enqueue(stage)).created == 1
