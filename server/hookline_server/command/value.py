"""The values of fields: JSON, or its forgiving form, quoted text and bare text; and the placeholders in them."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import Any

import pyjson5
from lark import Token

from hookline.item import DEPTH_MAX, INTEGER_MAX, INTEGER_MIN
from hookline_server.command.placeholder import PATTERN, Placeholder, Template
from hookline_server.command.source import END_OF_TEXT, CommandSyntaxError, Source, did_you_mean, either
from hookline_server.command.verbs import BRACKETS, KIND_OF, KINDS, TEXTS, WORDS

LITERALS = ("true", "false", "null")

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_FORGIVING_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F]+|(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
)
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)

_JSON = re.compile(
    r"""
      (?P<space>(?:\s|\ufeff)+|//[^\n\r\u2028\u2029]*|/\*(?s:.*?)\*/)
    | (?P<string>"(?:[^"\\\n]|\\\r\n|\\(?s:.))*"|'(?:[^'\\\n]|\\\r\n|\\(?s:.))*')
    | (?P<placeholder>PLACEHOLDER)
    | (?P<open>[{\[])
    | (?P<close>[}\]])
    | (?P<head>/(?:selected-)?datastore\b|for\s+each\s|(?:VERBS)\s+(?:for\s+)?(?:a\s+)?(?:new\s+)?
        (?:items?|settings|orchestrations?|schedules?)\s+(?:as\s+\w+\s+)?(?:with|where|of)\b)
    | (?P<word>[^\s\ufeff{}\[\],:"'/]+)
    | (?P<unclosed>["']|/\*)
    | (?P<other>.)
    """.replace("VERBS", "|".join(WORDS)).replace("PLACEHOLDER", PATTERN),
    re.VERBOSE | re.IGNORECASE,
)
"""The tokens of forgiving JSON. The head of a command is none: before it, some bracket was left open."""

_PLACEHOLDER = re.compile(PATTERN)
_QUOTED_PLACEHOLDER = re.compile(rf"\\(?s:.)|{PATTERN}")
"""In quotes a bracket behind a backslash is only a bracket."""

_FIELD = re.compile(rf"(?<=[\s,;])(?:{'|'.join(KIND_OF)})(?=\s*:)", re.IGNORECASE)
_FIRST = re.compile(rf"{PATTERN}|[\w.+-]+")
_CURLY = (
    "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{DOUBLE LOW-9 QUOTATION MARK}"
    "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{SINGLE LOW-9 QUOTATION MARK}`"
)
"""What word processors and Markdown put in place of quotes."""


def expected(kind: str) -> str:
    """How a kind is called in an error."""
    name = kind.rstrip("?")
    text = KINDS[name][0] if name in KINDS else either(f"'{word}'" for word in name.split("|"))
    return f"{text}, or null" if kind.endswith("?") else text


def fits(value: object, kind: str) -> bool:
    """Whether a value is of a kind."""
    name = kind.rstrip("?")
    if value is None and kind.endswith("?"):
        return True
    return type(value) in KINDS[name][1] if name in KINDS else value in name.split("|")


def read_value(source: Source, token: Token, kind: str) -> Any:
    """A value as it is written -> itself, with templates where it has placeholders.

    Raises:
        CommandSyntaxError: it is not of the kind, or no well-formed value at all.
    """
    start, end = token.start_pos or 0, token.end_pos or 0
    if token.type == "OPEN":
        value = _read_json(source, start, end)
    elif token.type == "STRING":
        value = _read_string(source, start, source.text[start:end])
    else:
        value = _read_bare(source, start, token.rstrip(), kind)
    if not _may_fit(value, kind):
        raise _misfit(source, token, kind)
    return value


def _may_fit(value: object, kind: str) -> bool:
    """Whether a value is of a kind, or could be once its placeholders are bound."""
    if isinstance(value, Template):
        # What it stands for is not known yet. Text can be a duration, or one of some words, but no number.
        return value.whole is not None or kind.rstrip("?") in (*TEXTS, "json", "duration")
    return fits(value, kind)


def _misfit(source: Source, token: Token, kind: str) -> CommandSyntaxError:
    """The error for a value that is not of its kind, or for what follows one that is."""
    start, written, found = token.start_pos or 0, token.rstrip(), None
    if token.type != "OPEN":
        found = repr(written[:40])
        first = _FIRST.match(written)
        behind = written[first.end() :].lstrip() if first else ""
        if first and behind and _may_fit(_read_bare(source, start, first[0], kind), kind):
            return source.error(start + len(written) - len(behind), "the end of the line")
    words = LITERALS[:2] if kind.startswith("boolean") else () if kind.rstrip("?") in KINDS else kind.split("|")
    return source.error(start, expected(kind), found, did_you_mean(source.word(start), words))


def check_bare(source: Source, token: Token, kind: str) -> None:
    """Refuse what is no part of a name, but comes into one by a missing 'and' or from a word processor.

    Prose and JSON values may have all of it, and so may names in quotes.

    Raises:
        CommandSyntaxError
    """
    start, written = token.start_pos or 0, token.rstrip()
    if kind in BRACKETS or kind == "prose":
        return
    if field := _FIELD.search(written):
        wanted = "'and' before the next field" if token.type == "WORDS" else "the next field on a line of its own"
        hint = f"text that has '{field[0]}:' in it must be in quotes"
        raise source.error(start + field.start(), wanted, hint=hint)
    if kind not in ("text", "duration"):
        return
    last = len(written) - 1
    for at in (0, last):
        if written[at] in _CURLY:
            raise source.error(start + at, "no quotes around text, or straight ones", hint="use straight quotes")
    if written[last] == ",":
        raise source.error(start + last, "the end of the line", hint="text that ends with a comma must be in quotes")
    if not written.isprintable():
        for at, character in enumerate(written, start):
            if unicodedata.category(character) == "Cf":
                raise source.error(at, "no invisible character", hint="text that has one must be in quotes")


def _read_bare(source: Source, at: int, written: str, kind: str) -> Any:
    """A value without quotes: text, unless the field takes other kinds and JSON reads it as one of them."""
    parts: list[str | Placeholder] = []
    done = 0
    for match in _PLACEHOLDER.finditer(written):
        parts += [written[done : match.start()], source.placeholder(at + match.start(), match[0])]
        done = match.end()
    if parts:
        return Template(tuple(part for part in (*parts, written[done:]) if part))
    if kind in TEXTS:
        return written
    if _NOT_FINITE.fullmatch(written) and kind == "json":
        raise source.error(at, "a finite number", hint="as text it must be in quotes")
    if _NUMBER.fullmatch(written):
        _check_number(source, at, written)
        return json.loads(written)
    return json.loads(written) if written in LITERALS else written


def _read_string(source: Source, at: int, written: str) -> str | Template:
    """Text in quotes."""
    quote = written[0]
    parts: list[str | Placeholder] = []
    done = 1
    for match in _QUOTED_PLACEHOLDER.finditer(written, 1, len(written) - 1):
        if match[0][0] != "\\":
            parts.append(_decode_text(source, at + done - 1, f"{quote}{written[done : match.start()]}{quote}"))
            parts.append(source.placeholder(at + match.start(), match[0]))
            done = match.end()
    last = _decode_text(source, at + done - 1, quote + written[done:])
    return Template(tuple(part for part in (*parts, last) if part)) if parts else last


def _decode_text(source: Source, at: int, written: str) -> str:
    text: str = _decode(source, at, written) if "\\" in written else written[1:-1]
    return text


def skip(source: Source, start: int) -> int:
    """The end of the brackets that open at ``start``, whatever else stands between them.

    Raises:
        CommandSyntaxError: one of them is not closed.
    """
    opened: list[int] = []
    found = END_OF_TEXT
    for token in _JSON.finditer(source.text, start):
        kind, at = token.lastgroup, token.start()
        if kind == "open":
            opened.append(at)
        elif kind == "placeholder" and not opened:
            return token.end()
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


def _is_sound(source: Source, start: int, end: int) -> bool:
    """Whether all is well so far. Else a stray quote is only the apostrophe of a later field."""
    try:
        _check(source, start, end)
    except CommandSyntaxError:
        return False
    return True


_CLOSING = {"{": "}", "[": "]"}
_VALUE, _NAME, _COLON, _COMMA = "a value", "a name in quotes", "':'", "','"


def _read_json(source: Source, start: int, end: int) -> Any:
    """What stands between brackets. Templates are read apart, and integers too great for a value keep their places."""
    apart = _check(source, start, end)
    pieces, done = [], start
    for place, (at, until, _) in enumerate(apart):
        pieces += [source.text[done:at], str(_FIRST_MARK + place)]
        done = until
    value = _decode(source, start, "".join((*pieces, source.text[done:end])))
    return _restore(value, [template for _, _, template in apart]) if apart else value


_FIRST_MARK = INTEGER_MAX + 1


def _restore(value: Any, apart: list[Template]) -> Any:
    if isinstance(value, dict):
        return {name: _restore(member, apart) for name, member in value.items()}
    if isinstance(value, list):
        return [_restore(member, apart) for member in value]
    return apart[value - _FIRST_MARK] if type(value) is int and value >= _FIRST_MARK else value


def _check(source: Source, start: int, end: int) -> list[tuple[int, int, Template]]:
    """Refuse what is not forgiving JSON, and what the two libraries would let pass or could not place.

    Gives where the templates begin and end.
    """
    levels: list[tuple[str, set[str]]] = []  # how each level closes, and the names that its object has so far
    wanted, closing = _VALUE, ""
    apart: list[tuple[int, int, Template]] = []
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
        elif kind in ("string", "word", "placeholder") and wanted == _VALUE:
            template = _check_member(source, at, word, kind)
            if template:
                apart.append((at, token.end(), template))
            wanted = _COMMA
        else:
            raise source.error(at, either([wanted, f"'{closing}'"] if may_close else [wanted]))
        closing = levels[-1][0] if levels else ""
    return apart


def _check_member(source: Source, at: int, word: str, kind: str) -> Template | None:
    """Look at a value without brackets -> the template that it is, if it is one."""
    if kind == "placeholder":
        return Template((source.placeholder(at, word),))
    if kind == "word":
        _check_word(source, at, word)
        return None
    text = _read_string(source, at, word)
    return text if isinstance(text, Template) else None


def _check_name(source: Source, at: int, word: str, names: set[str]) -> None:
    if word[0] in "\"'":
        name = _decode_text(source, at, word)
    elif word.replace("$", "_").isidentifier():
        name = word
    else:
        raise source.error(at, _NAME)
    if name in names:
        raise source.error(at, "each name once in an object", f"{name[:40]!r} again")
    names.add(name)


def _check_word(source: Source, at: int, word: str) -> None:
    if _NOT_FINITE.fullmatch(word):
        raise source.error(at, "a finite number")
    if _FORGIVING_NUMBER.fullmatch(word):
        _check_number(source, at, word)
    elif word not in LITERALS:
        hint = did_you_mean(source.word(at), LITERALS)
        raise source.error(at, "text in quotes, a number, true, false or null", hint=hint)


def _check_number(source: Source, at: int, word: str) -> None:
    if "x" in word.lower() or not re.search(r"[.eE]", word):
        # The length first: Python refuses to read thousands of digits.
        if len(word) > len(str(INTEGER_MAX)) + 1 or not INTEGER_MIN <= int(word, 0) <= INTEGER_MAX:
            raise source.error(at, "an integer of at most 64 bits")
    elif math.isinf(float(word)):
        raise source.error(at, "a number of at most 64 bits")


def _decode(source: Source, at: int, written: str) -> Any:
    try:
        return json.loads(written)
    except ValueError:
        pass
    try:
        return pyjson5.decode(written, DEPTH_MAX)
    except (pyjson5.Json5DecoderException, ValueError) as error:
        # All but escapes in strings has been checked, so it is rarely pyjson5 that says where.
        near = re.search(r"near (\d+)", str(error))
        raise source.error(at + int(near[1]) - 1 if near else at, "well-formed JSON") from None
