"""beanstalkd, by greenstalk: one job after the other, which is all that its protocol has."""

from __future__ import annotations

import contextlib
import threading

from greenstalk import Client, TimedOutError

from base import Rival, handled, main


class Beanstalkd(Rival):
    def open(self, url: str) -> None:
        host, port = url.removeprefix("beanstalk://").split(":")
        self.address = (host, int(port))
        self.local = threading.local()

    def enqueue(self, text: str) -> None:
        if not hasattr(self.local, "client"):
            self.local.client = Client(self.address)  # one serves one thread
        self.local.client.put(text)

    def empty(self) -> None:
        client = Client(self.address)
        with contextlib.suppress(TimedOutError):
            while True:
                client.delete(client.reserve(timeout=0))

    def work(self, url: str) -> None:
        self.open(url)
        client = Client(self.address)
        while True:
            job = client.reserve()
            handled(job.body)
            client.delete(job)


if __name__ == "__main__":
    main(Beanstalkd())
