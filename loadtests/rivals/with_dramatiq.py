"""Dramatiq."""

from __future__ import annotations

import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from base import Rival, handled, main

THREADS = 8
"""Its own default: more of them are slower here."""


class WithDramatiq(Rival):
    def open(self, url: str) -> None:
        broker = RedisBroker(url=url)
        broker.middleware = [each for each in broker.middleware if type(each).__name__ != "Prometheus"]
        dramatiq.set_broker(broker)
        self.broker = broker
        self.job = dramatiq.actor(handled, actor_name="job", broker=broker)

    def enqueue(self, text: str) -> None:
        self.job.send(text)

    def work(self, url: str) -> None:
        self.open(url)
        dramatiq.Worker(self.broker, worker_threads=THREADS).start()
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main(WithDramatiq())
