"""Handlers that other processes can import."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from hookline import Job, Retry


def pid(job: Job) -> dict[str, Any]:
    job.progress("begun")
    return {"pid": os.getpid(), "content": job.content}


def kill_itself(_: Job) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(_: Job) -> None:
    threading.Event().wait(60)


class Told(Exception):
    """One that cannot be made anew of its text alone."""

    def __init__(self, place: str, detail: str) -> None:
        super().__init__(f"{place}: {detail}")


def raise_told(_: Job) -> None:
    raise Told("7", "the disk is full")


def leave(_: Job) -> None:
    raise SystemExit(3)


def raise_here(_: Job) -> None:
    raise Retry("not yet", after="1h")
