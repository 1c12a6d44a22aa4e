"""Handlers that other processes can import."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from typing import Any

from hookline import Cancel, Job, Release, Retry


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


def retry_told(_: Job) -> None:
    raise Retry(Told("7", "the disk is full"), after="1h")


def cancel_told(_: Job) -> None:
    raise Cancel(Told("7", "the disk is full"))


class Tomorrow(Release):
    """One that is made of nothing that it shows."""

    def __init__(self, *, days: int) -> None:
        super().__init__(delay=days * 86_400)


def release_until_tomorrow(_: Job) -> None:
    raise Tomorrow(days=1)


def tell_what_cannot_be_sent(job: Job) -> str:
    job.progress(threading.Lock())
    return "the result"


def end_a_program(_: Job) -> int:
    with subprocess.Popen(["/bin/sleep", "60"]) as program:
        program.terminate()
        try:
            return program.wait(10)
        finally:
            program.kill()


def say(_: Job) -> None:
    logging.getLogger("handlers").info("said in a process")
    logging.getLogger("httpx").info("a request")


_told: list[threading.Thread] = []
_returned = threading.Event()


def tell_once_it_has_returned(job: Job) -> None:
    def tell() -> None:
        _returned.wait(20)
        job.progress("late")

    _told.append(threading.Thread(target=tell))
    _told[0].start()


def tell_in_many_threads(job: Job) -> int:
    """After another job of this process, whose thread tells only now."""

    def tell(number: int) -> None:
        for _ in range(30):
            job.progress({"number": number, "of": str(number) * 200_000})

    _returned.set()
    _told[0].join()
    job.progress("first")
    threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 7


def tell_of_another_job_only(_: Job) -> None:
    _returned.set()
    _told[0].join()
