"""The parser of the command language: text -> commands, or the line, the column and what was expected there.

``command.lark`` is the grammar of the frame: heads, fields, where a value begins. Lark drives, and at the
first bracket of a value :func:`_skip` finds the last one: so any text is read in linear time, a JSON string
may hold what looks like a command, and a bracket that is never closed is itself named. What stands between
the brackets is checked token by token, for its place, and then read by a library: as JSON, else as JSON5.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pyjson5
from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedToken

from hookline.errors import HooklineError
from hookline.item import DEPTH_MAX, INTEGER_MAX, INTEGER_MIN

TEXT_MAX = 65_536
"""Longest text, in bytes of UTF-8."""

_IDENTITY = {"key": "text", "sortField": "text"}
_CHANGE = {"content": "json", "metadata": "object", "triggerUrls": "json"}
_CLAIM = {**_IDENTITY, "token": "text"}
_FILTER = {"key": "text", "metadata": "object", "where": "object", "limit": "integer"}

FIELDS: dict[str, dict[str, str]] = {
    "create": {**_IDENTITY, **_CHANGE, "upsert": "boolean"},
    "update": {**_IDENTITY, **_CHANGE, "version": "integer", "token": "text"},
    "query": {**_FILTER, "order": "text", "cursor": "text"},
    "get": {**_IDENTITY, "limit": "integer", "cursor": "text"},
    "delete": {**_IDENTITY, "version": "integer"},
    "claim": {
        **_FILTER,
        "workerId": "text",
        "lockFor": "duration",
        "wait": "duration",
        "triggers": "key|on|off",
    },
    "complete": {**_CLAIM, "metadata": "object"},
    "fail": {**_CLAIM, "error": "text", "retryAfter": "duration", "metadata": "object"},
    "release": {**_CLAIM, "delay": "duration"},
    "extend": {**_CLAIM, "lockFor": "duration"},
}
"""Verb -> its fields -> the kind of each, one of :data:`KINDS`, or the words to choose from.

In query and claim, ``where`` and ``metadata`` mean the same.
"""

KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "text": ("text", (str,)),
    "integer": ("an integer", (int,)),
    "boolean": ("true or false", (bool,)),
    "duration": ("seconds as a number, or a duration such as 10m", (str, int, float)),
    "object": ("an object {...}", (dict,)),
    "json": ("a JSON value", (dict, list, str, int, float, bool, type(None))),
}
"""Kind -> how it is called in an error, and what its values are in Python."""

REQUIRED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("create", "query", "get", "claim"), ("key",)),
    **dict.fromkeys(("update", "delete"), ("key", "sortField")),
    **dict.fromkeys(("complete", "fail", "release", "extend"), ("key", "sortField", "token")),
}
"""Verb -> the fields without which it means nothing."""

TRIGGERS_OFF = ("update", "delete")
"""The verbs that can be told to fire no triggers."""

EXCLUSIVE: dict[str, tuple[tuple[str, str], ...]] = {
    "query": (("metadata", "where"),),
    "claim": (("metadata", "where"),),
    "get": (("sortField", "limit"), ("sortField", "cursor")),
}
"""Verb -> pairs of fields of which it takes one."""


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


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its verb, its fields under their canonical names, and where it starts."""

    verb: str
    fields: dict[str, Any]
    triggers_off: bool
    line: int
    column: int
    places: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)

    def place(self, pointer: str) -> tuple[int, int]:
        """Line and column of the value that a JSON pointer such as ``/limit`` enters, else of the command."""
        return self.places.get(pointer.removeprefix("/").partition("/")[0], (self.line, self.column))


def parse(text: str) -> list[Command]:
    """Read a text of any number of commands.

    Raises:
        CommandSyntaxError: the text is longer than :data:`TEXT_MAX` or is not in the language.
    """
    source = _Source(text)
    source.check_size()
    return [_command(source, tree.children) for tree in _frame(source).children if isinstance(tree, Tree)]


class _Source:
    """The text, and errors at a place in it."""

    def __init__(self, text: str) -> None:
        # The grammar ends every line with a newline, the last one too.
        self.text = text + "\n"
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, at: int) -> tuple[int, int]:
        line = bisect_right(self._starts, at)
        return line, at - self._starts[line - 1] + 1

    def check_size(self) -> None:
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

    def error(self, at: int, expected: str, found: str | None = None, hint: str = "") -> CommandSyntaxError:
        line, column = self.place(at)
        start, end = self._starts[line - 1], self.text.find("\n", at)
        if not self.text[at:end].strip():
            # Spaces and a carriage return before the end of a line are no part of its column.
            at = start + len(self.text[start:at].rstrip())
            rest = "line" if self.text[end:].strip() else "text"
            column, found = at - start + 1, found or f"the end of the {rest}"
        shown_from = max(start, at - 60)
        # A tab, or what cannot be shown, is one column wide here too.
        shown = "".join(c if c.isprintable() else " " for c in self.text[shown_from : min(end, at + 40)])
        excerpt = f"{shown.rstrip()}\n{' ' * (at - shown_from)}^"
        return CommandSyntaxError(line, column, expected, found or repr(self.word(at)), hint, excerpt)


_WORD = re.compile(r"[\w/.-]{1,40}|\S")


def _did_you_mean(word: str, choices: Iterable[str]) -> str:
    # Compared without regard to case, shown as it is spelled.
    spelled = {choice.lower(): choice for choice in choices}
    close = get_close_matches(word.lower(), spelled, n=1)
    return f"did you mean '{spelled[close[0]]}'?" if close else ""


def _either(choices: Iterable[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last


_GRAMMAR = Lark.open("command.lark", rel_to=__file__, parser="lalr", lexer="contextual")

_EXPECTED = {
    "NAME": "a field such as 'key: value'",
    "DATASTORE": "'/datastore'",
    **{verb.upper(): f"'{verb}'" for verb in FIELDS},
    **{f"_{word.upper()}": f"'{word}'" for word in ("a", "new", "item", "items", "with", "where")},
    "OFF": "'triggers off'",
    "_COLON": "':'",
    "_AND": "'and'",
    "_NL": "the end of the line",
    **dict.fromkeys(("OPEN", "STRING", "TEXT", "WORDS"), "a value"),
}
"""Terminal -> how it is called in an error, in the order in which an error lists them."""

_KIND_OF = {name.lower(): kind for fields in FIELDS.values() for name, kind in fields.items()}
"""A field is of the same kind in every verb, so its name alone tells what may follow."""


def _frame(source: _Source) -> Tree[Token]:
    parser = _GRAMMAR.parse_interactive(source.text)
    cursor = parser.lexer_thread.state.line_ctr  # type: ignore[union-attr]  # a text was given, so there is a state
    token, kind = None, "json"
    try:
        for token in parser.iter_parse():
            if token.type == "NAME":
                kind = _KIND_OF.get(token.lower(), "json")
            elif token.type == "OPEN":
                # The brackets may be on the line after the name. Lark goes on where they close.
                token.start_pos = cursor.char_pos - 1
                if kind not in ("object", "json"):
                    hint = "text that begins with a bracket must be in quotes"
                    raise source.error(token.start_pos, _expected(kind), hint=hint)
                token.end_pos = _skip(source, token.start_pos)
                cursor.feed(source.text[cursor.char_pos : token.end_pos])
        tree: Tree[Token] = parser.feed_eof(token)  # type: ignore[no-untyped-call]
    except UnexpectedCharacters as error:
        raise _frame_error(source, error.pos_in_stream or 0, error.allowed) from None
    except UnexpectedToken as error:
        raise _frame_error(source, _start(error.token), error.expected) from None
    return tree


def _frame_error(source: _Source, at: int, allowed: Iterable[str]) -> CommandSyntaxError:
    allowed = set(allowed)
    word = source.word(at)
    if word in ('"', "'") and "STRING" in allowed:
        return source.error(at, f"this {word} to be closed on its line")
    expected = list(dict.fromkeys(phrase for terminal, phrase in _EXPECTED.items() if terminal in allowed))
    if "NAME" in allowed and word.lower() in _KIND_OF:
        hint = f"is a ':' missing after '{word}'?"
    else:
        hint = _did_you_mean(word, (phrase.strip("'") for phrase in expected))
    return source.error(at, _either(expected), hint=hint)


def _start(token: Token) -> int:
    return token.start_pos or 0


def _command(source: _Source, parts: list[Token | Tree[Token]]) -> Command:
    head = [part for part in parts if isinstance(part, Token)]
    verb = next(token.lower() for token in head if token.lower() in FIELDS)
    off = next((token for token in head if token.type == "OFF"), None)
    if off is not None and verb not in TRIGGERS_OFF:
        raise source.error(_start(off), f"no 'triggers off' in {verb} (only in {_either(TRIGGERS_OFF)})")
    spelled = {name.lower(): name for name in FIELDS[verb]}
    lines: dict[str, int] = {}
    values: dict[str, Any] = {}
    places: dict[str, tuple[int, int]] = {}
    for tree in parts:
        if isinstance(tree, Token):
            continue
        written, value = (child for child in tree.children if isinstance(child, Token))
        at = _start(written)
        name = spelled.get(written.lower())
        if name is None:
            allowed = f"a field of {verb} ({', '.join(spelled.values())})"
            raise source.error(at, allowed, hint=_did_you_mean(written, spelled.values()))
        if name in lines:
            raise source.error(at, "each field once", f"'{name}' again after line {lines[name]}")
        for pair in EXCLUSIVE.get(verb, ()):
            if name in pair and not lines.keys().isdisjoint(pair):
                raise source.error(at, f"either '{pair[0]}' or '{pair[1]}'", "both")
        lines[name] = source.place(at)[0]
        values[name] = _value(source, value, FIELDS[verb][name])
        places[name] = source.place(_start(value))
    for name in REQUIRED[verb]:
        if name not in values:
            raise source.error(_start(head[0]), f"the field '{name}' in this {verb}", "none")
    return Command(verb, values, off is not None, *source.place(_start(head[0])), places)


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_FORGIVING_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F]+|(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
)
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_LITERALS = ["true", "false", "null"]

_JSON = re.compile(
    r"""
      (?P<space>(?:\s|\ufeff)+|//[^\n\r\u2028\u2029]*|/\*(?s:.*?)\*/)
    | (?P<string>"(?:[^"\\\n]|\\\r\n|\\(?s:.))*"|'(?:[^'\\\n]|\\\r\n|\\(?s:.))*')
    | (?P<open>[{\[])
    | (?P<close>[}\]])
    | (?P<head>/(?:selected-)?datastore\b|(?:VERBS)\s+(?:a\s+)?(?:new\s+)?items?\s+(?:with|where)\b)
    | (?P<word>[^\s\ufeff{}\[\],:"'/]+)
    | (?P<unclosed>["']|/\*)
    | (?P<other>.)
    """.replace("VERBS", "|".join(FIELDS)),
    re.VERBOSE | re.IGNORECASE,
)
"""The tokens of forgiving JSON. The head of a command is none: before it, some bracket was left open."""


def _expected(kind: str) -> str:
    return KINDS[kind][0] if kind in KINDS else _either(f"'{word}'" for word in kind.split("|"))


def _value(source: _Source, token: Token, kind: str) -> Any:
    start, end = _start(token), token.end_pos or 0
    if token.type == "OPEN":
        _check(source, start, end)
        value = _decode(source, start, end)
    elif token.type == "STRING":
        value = _decode(source, start, end)
    else:
        value = _bare(source, start, token.rstrip(), kind)
    if kind in KINDS:
        fits, words = type(value) in KINDS[kind][1], _LITERALS[:2] if kind == "boolean" else []
    else:
        fits, words = value in kind.split("|"), kind.split("|")
    if not fits:
        raise source.error(start, _expected(kind), hint=_did_you_mean(source.word(start), words))
    return value


def _bare(source: _Source, at: int, written: str, kind: str) -> Any:
    """A value without quotes: text, unless the field takes other kinds and JSON reads it as one of them."""
    if kind == "text":
        return written
    if _NOT_FINITE.fullmatch(written) and kind == "json":
        raise source.error(at, "a finite number", hint="as text it must be in quotes")
    if _NUMBER.fullmatch(written):
        _check_number(source, at, written)
        return json.loads(written)
    return json.loads(written) if written in _LITERALS else written


def _skip(source: _Source, start: int) -> int:
    """The end of the brackets that open at ``start``, whatever else stands between them."""
    opened: list[int] = []
    found = "the end of the text"
    for token in _JSON.finditer(source.text, start):
        kind, at = token.lastgroup, token.start()
        if kind == "open":
            opened.append(at)
        elif kind == "close" and token[0] == _CLOSING[source.text[opened[-1]]]:
            opened.pop()
            if not opened:
                return token.end()
        elif kind in ("close", "head", "unclosed"):
            if kind == "unclosed" and _is_sound(source, start, at):
                raise source.error(at, f"this {token[0]} to be closed")
            line, column = source.place(at)
            found = f"{source.word(at)!r} at line {line}, column {column}"
            break
    opening = source.text[opened[-1]]
    raise source.error(opened[-1], f"a '{_CLOSING[opening]}' that closes this '{opening}'", found)


def _is_sound(source: _Source, start: int, end: int) -> bool:
    """Whether all is well so far. Else a stray quote is only the apostrophe of a later field."""
    try:
        _check(source, start, end)
    except CommandSyntaxError:
        return False
    return True


_CLOSING = {"{": "}", "[": "]"}
_VALUE, _NAME, _COLON, _COMMA = "a value", "a name in quotes", "':'", "','"


def _check(source: _Source, start: int, end: int) -> None:
    """Refuse what is not forgiving JSON, and what the two libraries would let pass or could not place."""
    levels: list[tuple[str, set[str]]] = []  # how each level closes, and the names that its object has so far
    wanted, closing = _VALUE, ""
    for token in _JSON.finditer(source.text, start, end):
        kind, word, at = token.lastgroup, token[0], token.start()
        may_close = wanted in (_NAME, _COMMA) or (wanted == _VALUE and closing == "]")
        if kind == "space":
            continue
        if kind == "open" and wanted == _VALUE:
            if len(levels) == DEPTH_MAX:
                raise source.error(at, f"at most {DEPTH_MAX} levels of nesting")
            levels.append((_CLOSING[word], set()))
            wanted = _NAME if word == "{" else _VALUE
        elif kind == "close" and may_close:
            levels.pop()
            wanted = _COMMA
        elif word == "," and wanted == _COMMA:
            wanted = _NAME if closing == "}" else _VALUE
        elif word == ":" and wanted == _COLON:
            wanted = _VALUE
        elif kind in ("string", "word") and wanted == _NAME:
            _check_name(source, at, word, levels[-1][1])
            wanted = _COLON
        elif kind in ("string", "word") and wanted == _VALUE:
            if kind == "word":
                _check_word(source, at, word)
            wanted = _COMMA
        else:
            raise source.error(at, _either([wanted, f"'{closing}'"] if may_close else [wanted]))
        closing = levels[-1][0] if levels else ""


def _check_name(source: _Source, at: int, word: str, names: set[str]) -> None:
    if word[0] in "\"'":
        name = _decode(source, at, at + len(word)) if "\\" in word else word[1:-1]
    elif word.replace("$", "_").isidentifier():
        name = word
    else:
        raise source.error(at, _NAME)
    if name in names:
        raise source.error(at, "each name once in an object", f"{name[:40]!r} again")
    names.add(name)


def _check_word(source: _Source, at: int, word: str) -> None:
    if _NOT_FINITE.fullmatch(word):
        raise source.error(at, "a finite number")
    if _FORGIVING_NUMBER.fullmatch(word):
        _check_number(source, at, word)
    elif word not in _LITERALS:
        hint = _did_you_mean(source.word(at), _LITERALS)
        raise source.error(at, "text in quotes, a number, true, false or null", hint=hint)


def _check_number(source: _Source, at: int, word: str) -> None:
    if "x" in word.lower() or not re.search(r"[.eE]", word):
        # The length first: Python refuses to read thousands of digits.
        if len(word) > len(str(INTEGER_MAX)) + 1 or not INTEGER_MIN <= int(word, 0) <= INTEGER_MAX:
            raise source.error(at, "an integer of at most 64 bits")
    elif math.isinf(float(word)):
        raise source.error(at, "a number of at most 64 bits")


def _decode(source: _Source, start: int, end: int) -> Any:
    written = source.text[start:end]
    try:
        return json.loads(written)
    except ValueError:
        pass
    try:
        return pyjson5.decode(written, DEPTH_MAX)
    except (pyjson5.Json5DecoderException, ValueError) as error:
        # All but escapes in strings has been checked, so it is rarely pyjson5 that says where.
        near = re.search(r"near (\d+)", str(error))
        at = start + int(near[1]) - 1 if near else start
        raise source.error(at, "well-formed JSON") from None
