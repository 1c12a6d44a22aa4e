"""Schemathesis asks a live server for what its document allows and forbids, all checks on, and finds nothing to say."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from api import Api
from hookline_server import attempts, body
from hookline_server.gate import Gate
from server.conftest import MakeKey

HERE = Path(__file__).parent
EXAMPLES = os.environ.get("HOOKLINE_TEST_EXAMPLES", "2")
"""Made-up requests for each operation, beside those that follow from its schemas. ``make probe`` sends many more."""
SEED = os.environ.get("HOOKLINE_TEST_SEED", "1")


@pytest.mark.timeout(600 if "HOOKLINE_TEST_EXAMPLES" not in os.environ else 7200)
async def test_schemathesis_finds_nothing(
    api: Api, gate: Gate, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "WAIT_MAX", 0.01)
    # It shows many wrong keys and expects 401, which it would have to wait for.
    monkeypatch.setattr(attempts, "FREE", 10**9)
    api_key = (await make_key("default"))["Authorization"].removeprefix("Bearer ")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml", "run"),
        *(f"http://127.0.0.1:{api.port}/openapi.json", "--checks", "all", "--max-examples", EXAMPLES, "--seed", SEED),
        *("--generation-database", "none", "--no-color"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            **os.environ,
            "HOOKLINE_TEST_API_KEY": api_key,
            "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
            "PYTHONPATH": str(HERE),
        },
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, said.decode()
