"""What measures other queues runs, here with Hookline alone, and nothing is lost or run twice."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

RUN = Path(__file__).parents[2] / "loadtests/rivals/run.py"


async def test_hookline_is_measured_as_the_others_are(tmp_path: Path) -> None:
    options = ("--only", "hookline", "--jobs", "20", "--fsync", "no", "--settle", "0", "--out", str(tmp_path))
    child = await asyncio.create_subprocess_exec(sys.executable, RUN, *options, stdout=asyncio.subprocess.DEVNULL)
    assert await child.wait() == 0
    (figures,) = json.loads((tmp_path / "rivals.json").read_text())
    assert figures["failures"] == {}, (tmp_path / "rivals.log").read_text()
    assert figures["rates"].keys() == {"single", "bulk", "hundred", "drain"}
    assert figures["latency"].keys() == {"p50", "p99"}
    assert "| hookline " in (tmp_path / "rivals.md").read_text()
