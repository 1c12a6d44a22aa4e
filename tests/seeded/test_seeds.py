"""The suite catches bugs: those in ``seeds`` are planted in a copy of the code, and the test of each must fail.

Every sixth of them; ``make seeds`` plants all, and the model must find those that it can, too (minutes).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from seeded.seeds import SEEDS, Seed

ROOT = Path(__file__).parents[2]
SOURCES = ("lua", "engine", "server")
MODEL = "tests/model/test_model.py"
ALL = "HOOKLINE_TEST_SEEDS" in os.environ
PLANTED = SEEDS if ALL else SEEDS[::6]
BY_MODEL = [seed for seed in SEEDS if seed.by_model]


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the code that tests can be run against."""

    path: Path

    def plant(self, seed: Seed) -> None:
        file = self.path / seed.file
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(seed.old, seed.new), encoding="utf-8")

    def python(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run Python at the root of the tree; what it imports of Hookline is the copy."""
        paths = os.pathsep.join(str(self.path / source) for source in SOURCES)
        environ = {**os.environ, "PYTHONPATH": paths}
        return subprocess.run(
            [sys.executable, *args], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )

    def test(self, *tests: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *tests)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """The code as it is, what is compiled of it included."""
    for source in SOURCES:
        shutil.copytree(ROOT / source, tmp_path / source)
    return Copy(tmp_path)


def check_caught(seed: Seed, copy: Copy, test: str) -> None:
    """With the bug planted the test runs, and fails: by itself, or because the store was not in order after it."""
    copy.plant(seed)
    run = copy.test("-x", test)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, f"{seed.wrong}, and {test} does not fail:\n{run.stdout}"
    assert re.search(rf"^(FAILED|ERROR) {re.escape(test)}", run.stdout, re.MULTILINE), run.stdout
    assert "ERROR at setup of" not in run.stdout, run.stdout


def test_an_unchanged_copy_passes(copy: Copy) -> None:
    found = copy.python(
        "-c",
        "import hookline, hookline_lua, hookline_server, importlib.resources as r;"
        "print(*(r.files(each) for each in (hookline_lua, hookline, hookline_server)), sep='\\n')",
    )
    packages = ("lua/hookline_lua", "engine/hookline", "server/hookline_server")
    assert found.stdout.split() == [str(copy.path / package) for package in packages]
    run = copy.test(*sorted({seed.caught_by for seed in PLANTED}))
    assert run.returncode == pytest.ExitCode.OK, run.stdout + run.stderr


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_a_seed_has_its_place(seed: Seed) -> None:
    found = (ROOT / seed.file).read_text(encoding="utf-8").count(seed.old)
    assert found == 1, f"update the seed {seed.name}: {seed.file} has {found} times {seed.old!r}"


@pytest.mark.parametrize("seed", PLANTED, ids=lambda seed: seed.name)
def test_the_suite_catches(seed: Seed, copy: Copy) -> None:
    check_caught(seed, copy, seed.caught_by)


@pytest.mark.skipif(not ALL, reason="takes minutes: make seeds")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", BY_MODEL, ids=lambda seed: seed.name)
def test_the_model_catches(seed: Seed, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKLINE_TEST_MODEL_EXAMPLES", "200")
    check_caught(seed, copy, MODEL)
