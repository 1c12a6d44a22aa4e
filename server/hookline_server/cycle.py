"""One request and its answer: uvicorn's own cycle, but that an answer which is whole leaves in one piece."""

from __future__ import annotations

import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BODILESS = (204, 304)
CUT_OFF = {"type": "hookline.cut_off"}
"""What is sent in place of the rest of an answer that ends before its end, where that is meant: it is no error."""


class Cycle(RequestResponseCycle):
    """Holds a head whose length is known until its body is there, and writes both at once.

    uvicorn's way takes two writes and looks at each header twice. Whatever is out of the ordinary goes that way.
    """

    _held: Any = None

    async def send(self, message: Any) -> None:
        """Take a part of the answer.

        Raises:
            RuntimeError: the parts are not those of an answer.
        """
        held = self._held
        if message is CUT_OFF:
            if not self.disconnected:
                self.disconnected = True
                self.transport.close()
            return
        if message["type"] == "http.response.start":
            if not self.response_started and _is_measured(message):
                self._held = message
                return
        elif held is not None:
            self._held = None
            body = message.get("body", b"")
            if not message.get("more_body") and self._is_ordinary(held, body):
                self._write(held, body)
                return
            await super().send(held)
        await super().send(message)

    def _is_ordinary(self, head: Any, body: bytes) -> bool:
        return (
            self.keep_alive
            and not (self.disconnected or self.flow.write_paused)
            and self.scope["method"] != "HEAD"
            and head["status"] not in _BODILESS
            and (b"content-length", b"%d" % len(body)) in head["headers"]
        )

    def _write(self, head: Any, body: bytes) -> None:
        headers = [*self.default_headers, *head["headers"]]
        parts = [STATUS_LINE[head["status"]]]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n")
        written = b"".join(parts)
        # A line too many would be a header, or an answer, of whoever chose the text.
        lines = len(headers) + 2
        if written.count(b"\n") != lines or written.count(b"\r") != lines or _CONTROL.search(written):
            raise RuntimeError("a header of the answer holds a control character")
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(written + body)
        self.message_event.set()
        self.on_response()


def _is_measured(head: Any) -> bool:
    """Whether it tells the length of a body that stands ready, and nothing of the connection."""
    measured = False
    for name, _ in head["headers"]:
        if name == b"content-length":
            measured = True
        elif name in (b"connection", b"transfer-encoding"):
            return False
    return measured
