"""huey, with threads."""

from __future__ import annotations

import time

from huey import RedisHuey

from base import Rival, handled, main

THREADS = 8


class WithHuey(Rival):
    def open(self, url: str) -> None:
        self.huey = RedisHuey("jobs", url=url, results=False)
        self.job = self.huey.task(name="job")(handled)

    def enqueue(self, text: str) -> None:
        self.job(text)

    def work(self, url: str) -> None:
        self.open(url)
        self.huey.create_consumer(workers=THREADS, worker_type="thread", periodic=False).start()
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main(WithHuey())
