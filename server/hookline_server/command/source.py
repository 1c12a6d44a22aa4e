"""The text of commands, and what is wrong with it at one place."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from difflib import get_close_matches

from hookline.errors import HooklineError
from hookline_server.command.placeholder import Placeholder

TEXT_MAX = 65_536
"""Longest text, in bytes of UTF-8."""

END_OF_TEXT, NOTHING = "the end of the text", "none"
"""What is found where more text could put it right."""


class CommandSyntaxError(HooklineError):
    """The text is not in the command language, at one place. Lines and columns count characters, from 1."""

    code = "syntax_error"

    def __init__(self, line: int, column: int, expected: str, found: str, hint: str = "", excerpt: str = "") -> None:
        self.line = line
        self.column = column
        self.expected = expected
        self.found = found
        self.hint = hint
        self.excerpt = excerpt
        super().__init__(line, column, expected, found, hint, excerpt)

    def __str__(self) -> str:
        """One sentence; ``excerpt`` is the line itself with a caret under the column."""
        hint = f"; {self.hint}" if self.hint else ""
        return f"line {self.line}, column {self.column}: expected {self.expected}, found {self.found}{hint}"

    @property
    def incomplete(self) -> bool:
        """Whether all is well so far, and only the rest of the text is missing."""
        return self.found in (END_OF_TEXT, NOTHING)


class Source:
    """The text, errors at a place in it, and the placeholders that have been read from it."""

    def __init__(self, text: str) -> None:
        # The grammar ends every line with a newline, the last one too.
        self.text = text + "\n"
        self.placeholders: list[Placeholder] = []
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, at: int) -> tuple[int, int]:
        """Line and column of a character, each from 1."""
        line = bisect_right(self._starts, at)
        return line, at - self._starts[line - 1] + 1

    def check_size(self) -> None:
        """Refuse what is too long, or no UTF-8.

        Raises:
            CommandSyntaxError
        """
        try:
            encoded = self.text.encode()
        except UnicodeEncodeError as error:
            raise self.error(error.start, "text of UTF-8", "an unpaired surrogate") from None
        if len(encoded) > TEXT_MAX + 1:
            at = len(encoded[:TEXT_MAX].decode(errors="ignore"))
            raise self.error(at, f"at most {TEXT_MAX} bytes of text", f"{len(encoded) - 1} bytes")

    def word(self, at: int) -> str:
        """What stands here, as far as it helps to name it."""
        match = _WORD.match(self.text, at)
        return match[0] if match else ""

    def placeholder(self, at: int, written: str) -> Placeholder:
        """The placeholder ``[...]`` that stands here."""
        root, *path = written[1:-1].split(".")
        self.placeholders.append(Placeholder(root, tuple(path), *self.place(at)))
        return self.placeholders[-1]

    def error(self, at: int, expected: str, found: str | None = None, hint: str = "") -> CommandSyntaxError:
        """The error at a place; ``found`` is by default what stands there."""
        line, column = self.place(at)
        start, end = self._starts[line - 1], self.text.find("\n", at)
        if not self.text[at:end].strip():
            # Spaces and a carriage return before the end of a line are no part of its column.
            at = start + len(self.text[start:at].rstrip())
            rest = "the end of the line" if self.text[end:].strip() else END_OF_TEXT
            column, found = at - start + 1, found or rest
        return CommandSyntaxError(
            line, column, expected, found or repr(self.word(at)), hint, _excerpt(self.text[start:end], at - start)
        )

    def error_at(self, line: int, column: int, expected: str, found: str, hint: str) -> CommandSyntaxError:
        """The error at a line and column."""
        return self.error(self._starts[line - 1] + column - 1, expected, found, hint)


def excerpt(text: str, line: int, column: int) -> str:
    """A line of a text, as far as it can be shown, with a caret under the column."""
    lines = text.split("\n")
    return _excerpt(lines[line - 1], column - 1) if line <= len(lines) else ""


def _excerpt(line: str, at: int) -> str:
    shown_from = max(0, at - 60)
    # A tab, or what cannot be shown, is one column wide here too.
    shown = "".join(c if c.isprintable() else " " for c in line[shown_from : at + 40])
    return f"{shown.rstrip()}\n{' ' * (at - shown_from)}^"


_WORD = re.compile(r"[\w/.-]{1,40}|\S")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The hint that names the choice closest to a word, or nothing. Compared without regard to case."""
    spelled = {choice.lower(): choice for choice in choices}
    close = get_close_matches(word.lower(), spelled, n=1)
    return f"did you mean '{spelled[close[0]]}'?" if close else ""


def either(choices: Iterable[str]) -> str:
    """``a, b or c``."""
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last
