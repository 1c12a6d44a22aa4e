"""When a text at the prompt is whole, so that Enter sends it."""

from __future__ import annotations

from collections.abc import Iterable

from hookline_server.command import Command, CommandSyntaxError, parse


def is_whole(text: str, names: Iterable[str]) -> bool:
    """Whether Enter at the end of a text sends it, or begins a new line.

    A command on one line is whole where it ends, a loop with its ``end``; to fields one a line more could be added, so
    an empty line ends them. What is wrong is sent, to be told, unless the rest of the text could put it right.
    """
    line_is_empty = not text.rpartition("\n")[2].strip()
    try:
        statements = parse(text, names)
    except CommandSyntaxError as error:
        # An empty line also sends a text that is not whole, but within a bracket or a loop.
        return not error.incomplete or (line_is_empty and not _is_open(error))
    if line_is_empty or not statements:
        return True
    last = statements[-1]
    return not (isinstance(last, Command) and last.block)


def _is_open(error: CommandSyntaxError) -> bool:
    return "'end'" in error.expected or "that closes this" in error.expected
