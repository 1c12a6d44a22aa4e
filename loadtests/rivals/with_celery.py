"""Celery, with threads, acknowledging late, as its documentation has it for jobs that must not be lost."""

from __future__ import annotations

from celery import Celery

from base import WORKER_CONCURRENCY, Rival, handled, main

app = Celery("with_celery", set_as_current=True)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="job")
def job(text: str) -> None:
    handled(text)


class WithCelery(Rival):
    def open(self, url: str) -> None:
        app.conf.broker_url = url

    def enqueue(self, text: str) -> None:
        job.delay(text)

    def work(self, url: str) -> None:
        self.open(url)
        options = ["--pool=threads", f"--concurrency={WORKER_CONCURRENCY}", "--loglevel=ERROR"]
        app.worker_main(["worker", *options, "--without-gossip", "--without-mingle", "--without-heartbeat"])


if __name__ == "__main__":
    main(WithCelery())
