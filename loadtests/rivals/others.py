"""The rivals: what each one is installed from, and what it guarantees as it is run here.

python loadtests/rivals/others.py          installs them into loadtests/rivals/.installed, each apart from the others
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
INSTALLED = HERE / ".installed"
PYTHON = os.environ.get("RIVALS_PYTHON", sys.executable)
"""What installs and runs those in Python; ardiq needs 3.12."""
BEANSTALKD = Path(os.environ.get("BEANSTALKD", "/usr/bin/beanstalkd"))
"""Its server, which is no package of a language's own."""
NODE = ("bee-queue", "bullmq")


@dataclass(frozen=True, slots=True)
class Rival:
    """A queue. ``packages`` are those of its ecosystem; ``bulk``: it has a call that enqueues many."""

    name: str
    guarantees: str
    packages: tuple[str, ...] = ()
    bulk: bool = True
    jobs_max: int = 1_000_000
    start_s: float = 2.0

    def version(self) -> str:
        """What is installed, empty if it is not."""
        if self.name in NODE:
            manifest = INSTALLED / "node/node_modules" / self.name / "package.json"
            return str(json.loads(manifest.read_text())["version"]) if manifest.exists() else ""
        if not self.packages:
            return metadata.version(self.name)
        wanted = self.packages[0].partition("[")[0].replace("-", "_")
        found = sorted((INSTALLED / self.name).glob(f"lib/python*/site-packages/{wanted}-*.dist-info"))
        if not found or (self.name == "beanstalkd" and not BEANSTALKD.exists()):
            return ""
        version = found[-1].name.removesuffix(".dist-info").rpartition("-")[2]
        return f"by {wanted} {version}" if self.name == "beanstalkd" else version


RIVALS = (
    Rival(
        "hookline",
        "at least once; fenced tokens, one accepted completion; every job kept as a record that can be queried",
        start_s=1.5,
    ),
    Rival("bee-queue", "at least once (stalled jobs run again), no fencing; done jobs kept", ("bee-queue",)),
    Rival(
        "bullmq", "at least once (stalled jobs run again), lock token per job; done jobs kept", ("bullmq", "ioredis")
    ),
    Rival(
        "saq",
        "at least once by sweep of stuck jobs; done jobs kept 10 min",
        ("saq[redis,hiredis]", "typing-extensions", "uvloop"),
        False,
    ),
    Rival(
        "arq",
        "at least once (a job runs again if its worker dies); no results kept",
        ("arq", "hiredis", "uvloop"),
        False,
    ),
    Rival("streaq", "at least once (idle stream entries are claimed again); results kept 5 min", ("streaq", "uvloop")),
    Rival(
        "ardiq", "at least once (idle stream entries are claimed again); results kept for a while", ("ardiq", "uvloop")
    ),
    Rival(
        "taskiq",
        "at least once (stream, acknowledged after execution); no results",
        ("taskiq", "taskiq-redis", "uvloop"),
        False,
    ),
    Rival(
        "rq",
        "at most once: the job of a worker that dies ends as failed; results kept 500 s",
        ("rq", "hiredis"),
        jobs_max=1000,
    ),
    Rival("celery", "at least once (acks_late); no results", ("celery[redis]", "hiredis"), False, start_s=4.0),
    Rival(
        "dramatiq",
        "at least once (unacked messages are queued again); no results",
        ("dramatiq[redis]", "hiredis"),
        False,
    ),
    Rival(
        "huey", "at most once: a job is off the queue before it runs; no results", ("huey", "redis", "hiredis"), False
    ),
    Rival("tarsk", "at least once (leases return); no results", ("tarsk-redis",)),
    Rival(
        "repid",
        "at least once (idle stream entries are claimed again, as set here)",
        ("repid[redis]", "typing-extensions", "uvloop"),
        False,
    ),
    Rival(
        "pydocket",
        "at least once (idle stream entries are claimed again); results kept 15 min",
        ("pydocket", "uvloop"),
        jobs_max=1000,
    ),
    Rival(
        "beanstalkd",
        "at least once (reserved jobs return after their time to run); done jobs are deleted",
        ("greenstalk",),
        False,
    ),
)


def install(rival: Rival) -> None:
    """Install one.

    Raises:
        subprocess.CalledProcessError: that fails.
    """
    directory = INSTALLED / rival.name
    subprocess.run([PYTHON, "-m", "venv", directory], check=True)
    pip: list[str | Path] = [directory / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *rival.packages], check=True)


def main() -> None:
    """Install what is not there; one that fails leaves the others."""
    INSTALLED.mkdir(exist_ok=True)
    missing = [rival for rival in RIVALS if not rival.version()]
    node = [package for rival in missing if rival.name in NODE for package in rival.packages]
    if node and not shutil.which("npm"):
        print(f"without npm there is no {' and no '.join(NODE)}", file=sys.stderr)
    elif node:
        (INSTALLED / "node").mkdir(exist_ok=True)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", *node], cwd=INSTALLED / "node", check=False)
    for rival in missing:
        if rival.name not in NODE:
            print(f"Installing {rival.name}", file=sys.stderr)
            try:
                install(rival)
            except subprocess.CalledProcessError as error:
                print(f"{rival.name} can't be installed: {error}", file=sys.stderr)
    print("installed: " + ", ".join(f"{rival.name} {rival.version()}" for rival in RIVALS if rival.version()))


if __name__ == "__main__":
    main()
