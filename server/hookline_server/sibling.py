"""What the supervisor starts: one process among several. ``python -m hookline_server.sibling``, its line as stdin."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from pathlib import Path
from typing import Any

from hookline import Settings
from hookline.errors import HooklineError
from hookline_server import logs
from hookline_server.loop import runner
from hookline_server.peers import Peers
from hookline_server.process import Process
from hookline_server.stop import Stop
from hookline_server.supervisor import UP


async def serve(line: socket.socket, order: dict[str, Any]) -> None:
    """Serve as ordered, until a signal or the end of the line asks to stop."""
    settings = Settings.from_env({}, **order["settings"])
    logs.set_up(settings)
    loop = asyncio.get_running_loop()
    logs.note_loop_errors(loop)
    fileno = order["listener"]
    listener = None if fileno is None else socket.socket(fileno=fileno)
    stop = Stop(settings.grace)
    stop.on_signals()

    def hear() -> None:
        # The line says nothing more: this is its end.
        loop.remove_reader(line)
        stop.ask()

    loop.add_reader(line, hear)
    peers = Peers(Path(order["directory"]), order["slot"])
    process = Process(settings, order["store_url"], listener, order["slot"], peers)
    say = logging.getLogger(__name__).warning
    await process.run(stop, say, lambda: line.sendall(UP))


def main() -> None:
    """Read the order and serve."""
    line = socket.socket(fileno=0)
    with line.makefile("rb") as orders:
        order = json.loads(orders.readline())
    try:
        with runner() as running:
            running.run(serve(line, order))
    except HooklineError as error:
        sys.exit(f"hookline: {error}")


if __name__ == "__main__":
    main()
