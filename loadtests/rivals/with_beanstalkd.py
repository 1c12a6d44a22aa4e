"""beanstalkd, by greenstalk: one job after the other, which is all that its protocol has."""

from __future__ import annotations

from greenstalk import Client

from base import Rival, handled, main


class Beanstalkd(Rival):
    def open(self, url: str) -> None:
        host, port = url.removeprefix("beanstalk://").split(":")
        self.address = (host, int(port))
        self.client = Client(self.address)

    def enqueue(self, text: str) -> None:
        self.client.put(text)

    def work(self, url: str) -> None:
        self.open(url)
        while True:
            job = self.client.reserve()
            handled(job.body)
            self.client.delete(job)


if __name__ == "__main__":
    main(Beanstalkd())
