"""Syntax colours at the prompt, line by line."""

from __future__ import annotations

import re
from collections.abc import Callable

from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.styles import Style

from hookline_server.command.placeholder import PATTERN
from hookline_server.command.verbs import KIND_OF, WORDS

STYLE = Style.from_dict(
    {
        "prompt": "bold",
        "verb": "bold ansiblue",
        "word": "ansiblue",
        "field": "ansicyan",
        "string": "ansigreen",
        "number": "ansimagenta",
        "placeholder": "bold ansiyellow",
        "comment": "italic ansibrightblack",
        "error": "ansired",
        "notice": "ansibrightblack",
    }
)

_TOKENS = re.compile(
    rf"""
      (?P<comment>^\s*(?:\#|//).*)
    | (?P<verb>^\s*(?:/(?:selected-)?datastore\s+)?(?:{"|".join(WORDS)}|for\ each|end)\b(?!\s*:))
    | (?P<field>\b(?:{"|".join(KIND_OF)})(?=\s*:))
    | (?P<word>\b(?:items?|with|where|of|and|as|in|for|settings|keys|orchestrations?|schedules?|triggers?\s+off)\b)
    | (?P<placeholder>{PATTERN})
    | (?P<string>"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?)
    | (?P<number>(?<![\w.-])-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?:ms|[smhd])?(?![\w.-])|\b(?:true|false|null)\b)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def colour(line: str) -> StyleAndTextTuples:
    """A line in pieces, each with its style."""
    pieces: StyleAndTextTuples = []
    done = 0
    for token in _TOKENS.finditer(line):
        pieces += [("", line[done : token.start()]), (f"class:{token.lastgroup}", token[0])]
        done = token.end()
    return [piece for piece in (*pieces, ("", line[done:])) if piece[1]]


class CommandLexer(Lexer):
    """Colours a document by its lines."""

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """The function that colours the n-th line."""
        lines = document.lines
        return lambda number: colour(lines[number]) if number < len(lines) else []
