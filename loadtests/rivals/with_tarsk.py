"""tarsk: its handlers run in a child of the worker, so each tells the worker by a datagram that it was called."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tarsk import App, group
from tarsk._cli import main as tarsk

from base import WORKER_CONCURRENCY, Rival, handled, main

TELLS = "RIVALS_TELLS"
if __name__ == "__main__":
    os.environ["TARSK_BROKER"] = f"{sys.argv[1]}/0"  # its children have it from there, as the app has
    os.chdir(Path(__file__).parent)
app = App(broker=os.environ["TARSK_BROKER"])
_line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


@app.task(name="job", queue="default")
async def job(text: str) -> None:
    _line.sendto(text.encode(), ("127.0.0.1", int(os.environ[TELLS])))


class Tarsk(Rival):
    def open(self, url: str) -> None:
        """The app has it from the environment."""

    def enqueue(self, text: str) -> None:
        job.send(text)

    def enqueue_many(self, texts: Sequence[str]) -> None:  # type: ignore[override]
        group(job.s(text) for text in texts).send()

    def work(self, url: str) -> None:  # noqa: ARG002 - as in open
        told = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        told.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**24)
        told.bind(("127.0.0.1", 0))
        os.environ[TELLS] = str(told.getsockname()[1])

        def hear() -> None:
            while True:
                handled(told.recv(1024).decode())

        threading.Thread(target=hear, daemon=True).start()
        sys.argv = ["tarsk", "worker", "--app", "with_tarsk:app", "--children", "1", "--slots", str(WORKER_CONCURRENCY)]
        tarsk()


if __name__ == "__main__":
    main(Tarsk())
