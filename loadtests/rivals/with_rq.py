"""RQ, with its worker that does not fork for each job: the fastest that its documentation has."""

from __future__ import annotations

from collections.abc import Sequence

from redis import Redis
from rq import Queue, SimpleWorker

from base import Rival, handled, main


def job(text: str) -> None:
    handled(text)


class Rq(Rival):
    def open(self, url: str) -> None:
        self.queue = Queue("jobs", connection=Redis.from_url(url))

    def enqueue(self, text: str) -> None:
        self.queue.enqueue("with_rq.job", text)

    def enqueue_many(self, texts: Sequence[str]) -> None:  # type: ignore[override]
        self.queue.enqueue_many([Queue.prepare_data("with_rq.job", (text,)) for text in texts])

    def work(self, url: str) -> None:
        self.open(url)
        SimpleWorker([self.queue], connection=self.queue.connection).work(logging_level="WARNING")


if __name__ == "__main__":
    import sys

    sys.modules["with_rq"] = sys.modules["__main__"]
    main(Rq())
