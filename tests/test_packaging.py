"""The wheel holds the packages with their Lua, grammar and type markers, and works by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel(tmp_path: Path) -> None:
    build = "import hatchling.build, os, sys; os.chdir(sys.argv[1]); print(hatchling.build.build_wheel(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", build, str(ROOT), str(tmp_path)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "hookline",
        "hookline_lua",
        "hookline_server",
        "hookline_bench",
    }
    tracked = {
        path.relative_to(ROOT / root).as_posix()
        for root in ("lua", "engine", "server", "loadtests")
        for path in (ROOT / root).glob("hookline*/**/*")
        if path.suffix in (".py", ".lua", ".lark", ".typed") and path.is_file()
    }
    assert tracked <= names
    check = "import hookline, hookline_lua, hookline_server.app; hookline_lua.library(); print(hookline.__file__)"
    said = subprocess.run(
        [sys.executable, "-c", check],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(tmp_path / "site") in said
