"""The parser of the command language: text -> commands and loops, or the line, the column and what was expected there.

``command.lark`` is the grammar of the frame: heads, fields, where a value begins. Lark drives, and at the
first bracket of a value :func:`skip` finds the last one: so any text is read in linear time, a JSON string
may hold what looks like a command, and a bracket that is never closed is itself named. What stands between
the brackets is checked token by token, for its place, and then read by a library: as JSON, else as JSON5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedToken

from hookline_server.command.placeholder import NO_NAMES, OWN, Placeholder
from hookline_server.command.source import NOTHING, CommandSyntaxError, Source, did_you_mean, either
from hookline_server.command.value import check_bare, expected, read_value, skip
from hookline_server.command.verbs import BRACKETS, KIND_OF, VERBS, WORDS

LOOPS_MAX = 3
"""Loops within each other."""
NAMES_SHOWN = 20
"""Names that an error lists."""
_ALIASES = {"where": "metadata", "sortField": "sortFields"}
"""As the engine calls a field -> as it may be written here."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its verb, its fields under their canonical names, and where it starts.

    ``placeholders`` are those in its fields; ``name`` is what its result is called, by ``as``; ``block`` says whether
    its fields stand one a line, so that more of them could follow.
    """

    verb: str
    fields: dict[str, Any]
    triggers_off: bool
    line: int
    column: int
    places: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)
    name: str | None = None
    placeholders: tuple[Placeholder, ...] = field(default=(), compare=False)
    block: bool = field(default=False, compare=False)

    def place(self, pointer: str) -> tuple[int, int]:
        """Line and column of the value that a JSON pointer such as ``/limit`` enters, else of the command."""
        name = pointer.removeprefix("/").partition("/")[0]
        written = next((name for name in (name, _ALIASES.get(name, "")) if name in self.places), "")
        return self.places.get(written, (self.line, self.column))


@dataclass(frozen=True, slots=True)
class Loop:
    """``for each``: the body is run for each member of a list, which then has this name."""

    name: str
    over: Placeholder
    body: list[Statement]
    line: int
    column: int


Statement = Command | Loop


def parse(text: str, names: Iterable[str] = ()) -> list[Statement]:
    """Read a text of any number of commands. ``names`` are bound before it begins.

    Raises:
        CommandSyntaxError: the text is longer than :data:`TEXT_MAX` or is not in the language, or a placeholder in it
            has a name that nothing before it binds.
    """
    source = Source(text)
    source.check_size()
    return _statements(source, _frame(source).children, set(names), loops=())


@cache
def _grammar() -> Lark:
    """Made for the first text: it takes a sixth of the time in which a server starts."""
    return Lark.open("command.lark", rel_to=__file__, parser="lalr", lexer="contextual")


_FIXED = ("a", "new", "item", "items", "settings", "keys", "each", "in", "as", "with", "of", "where")
_NOUNS = ("ITEMS", "SETTINGS", "KEYS", "ORCHESTRATION", "ORCHESTRATIONS", "SCHEDULE", "SCHEDULES")
_EXPECTED = {
    "NAME": "a field such as 'key: value'",
    "DATASTORE": "'/datastore'",
    **{word.upper(): f"'{word}'" for word in WORDS},
    "_FOR": "'for'",
    "FOR": "'for each'",
    **{f"_{word.upper()}": f"'{word}'" for word in _FIXED},
    **{noun: f"'{noun.lower()}'" for noun in _NOUNS},
    "OFF": "'triggers off'",
    "LABEL": "a name",
    "PLACEHOLDER": "a list such as [items]",
    "END": "'end'",
    **dict.fromkeys(("BLOCK", "_COLON"), "':'"),
    "_AND": "'and'",
    "_NL": "the end of the line",
    **dict.fromkeys(("OPEN", "STRING", "TEXT", "WORDS"), "a value"),
}
"""Terminal -> how it is called in an error, in the order in which an error lists them."""
_FIELDS = tuple(dict.fromkeys(name for verb in VERBS.values() for name in verb.fields))
_NO_TRIGGERS = "did you mean 'with triggers off'?"
_TRIGGERLESS = re.compile(r"without|no|triggers?(?:[-_]?off)?", re.IGNORECASE)
"""How those who do not know of 'triggers off' ask for it."""
_BEGINNINGS = {_EXPECTED[name] for name in ("DATASTORE", "FOR", *(word.upper() for word in WORDS))}


def _frame(source: Source) -> Tree[Token]:
    parser = _grammar().parse_interactive(source.text)
    cursor = parser.lexer_thread.state.line_ctr  # type: ignore[union-attr]  # a text was given, so there is a state
    token, name, kind, loops = None, None, "json", 0
    try:
        for token in parser.iter_parse():
            loops += (token.type == "FOR") - (token.type == "END")
            if token.type == "NAME":
                name, kind = token, KIND_OF.get(token.lower(), "json")
            elif token.type in ("TEXT", "WORDS"):
                check_bare(source, token, kind)
            elif token.type == "OPEN":
                # The brackets may be on the line after the name. Lark goes on where they close.
                token.start_pos = cursor.char_pos - 1
                if kind not in BRACKETS:
                    hint = "text that begins with a bracket must be in quotes"
                    raise source.error(token.start_pos, expected(kind), hint=hint)
                token.end_pos = skip(source, token.start_pos)
                cursor.feed(source.text[cursor.char_pos : token.end_pos])
        tree: Tree[Token] = parser.feed_eof(token)  # type: ignore[no-untyped-call]
    except UnexpectedCharacters as error:
        raise _frame_error(source, error.pos_in_stream or 0, error.allowed, name, loops) from None
    except UnexpectedToken as error:
        raise _frame_error(source, _start(error.token), error.expected, name, loops) from None
    return tree


def _frame_error(source: Source, at: int, allowed: Iterable[str], name: Token | None, loops: int) -> CommandSyntaxError:
    """The error where none of the ``allowed`` terminals stands; ``name`` is the last field's, ``loops`` are open."""
    # The grammar's states do not tell the end of a command in a loop from that of any other.
    allowed = {terminal for terminal in allowed if terminal != "END" or loops > 0}
    if name is not None and "STRING" in allowed and name.lower() not in KIND_OF:
        # It has no value, but neither is it a field.
        hint = _NO_TRIGGERS if _TRIGGERLESS.fullmatch(name) else did_you_mean(name, _FIELDS)
        return source.error(_start(name), _EXPECTED["NAME"], hint=hint)
    word = source.word(at)
    if word in ('"', "'") and "STRING" in allowed:
        return source.error(at, f"this {word} to be closed on its line")
    phrases = list(dict.fromkeys(phrase for terminal, phrase in _EXPECTED.items() if terminal in allowed))
    if "NAME" in allowed and word.lower() in KIND_OF:
        hint = f"is a ':' missing after '{word}'?"
    elif "_WITH" in allowed and _TRIGGERLESS.fullmatch(word):
        hint = _NO_TRIGGERS
    elif "DATASTORE" in allowed and word.lower() == "end":
        hint = "no loop is open here"
    elif "DATASTORE" in allowed and word.lower() in KIND_OF:
        hint = "fields stand all on the line of their command, joined by 'and', or all below it"
    else:
        hint = did_you_mean(word, (phrase.strip("'") for phrase in phrases))
        if not hint and "OFF" in allowed and "NAME" not in allowed:
            hint = "fields follow 'where', not 'with'"
    if "NAME" in allowed and "DATASTORE" in allowed:
        phrases = [phrase for phrase in phrases if phrase not in _BEGINNINGS] + ["the next command"]
    return source.error(at, either(phrases), hint=hint)


def _start(token: Token) -> int:
    return token.start_pos or 0


def _statements(
    source: Source, parts: Iterable[Token | Tree[Token]], names: set[str], loops: tuple[str, ...]
) -> list[Statement]:
    """Read statements in order. ``names`` grows by what they bind; ``loops`` are the names of the loops around."""
    found: list[Statement] = []
    for tree in parts:
        if not isinstance(tree, Tree):
            continue
        if tree.data == "loop":
            found.append(_loop(source, tree.children, names, loops))
            continue
        command = _command(source, tree.children, loops)
        for placeholder in command.placeholders:
            _check_bound(source, placeholder, names)
        names |= {"result", *VERBS[command.verb].binds, *([command.name] if command.name else ())}
        found.append(command)
    return found


def _loop(source: Source, parts: list[Token | Tree[Token]], names: set[str], loops: tuple[str, ...]) -> Loop:
    tokens = {part.type: part for part in parts if isinstance(part, Token)}
    head, label, over = tokens["FOR"], tokens["LABEL"], tokens["PLACEHOLDER"]
    if len(loops) == LOOPS_MAX:
        raise source.error(_start(head), f"at most {LOOPS_MAX} loops within each other")
    name = _label(source, label, [taken for taken in (*OWN, *loops) if taken not in ("item", "job")])
    placeholder = source.placeholder(_start(over), str(over))
    _check_bound(source, placeholder, names)
    inside = names | {name, "item", "job", "current_version", "token"}
    return Loop(name, placeholder, _statements(source, parts, inside, (*loops, name)), *source.place(_start(head)))


def _check_bound(source: Source, placeholder: Placeholder, names: set[str]) -> None:
    if placeholder.root not in names:
        known = f"one of {', '.join(sorted(names)[:NAMES_SHOWN])}" if names else "none: no result comes before it"
        line, column = placeholder.line, placeholder.column
        lacking = f"the result before it has no {placeholder.root}" if names and placeholder.root in OWN else ""
        hint = lacking or did_you_mean(placeholder.root, [*names, *NO_NAMES[:3]]) or "text in quotes can have it as \\["
        raise source.error_at(line, column + 1, f"the name of a result ({known})", repr(placeholder.root[:40]), hint)


def _label(source: Source, token: Token, taken: Iterable[str]) -> str:
    """The name that a user gives to a result, or to a loop.

    Raises:
        CommandSyntaxError: it is bound otherwise.
    """
    name = str(token)
    if name.lower() in NO_NAMES or name in taken:
        raise source.error(_start(token), f"a name of your own, not one of {', '.join((*taken, *NO_NAMES[:3]))}")
    return name


def _verb(head: list[Token]) -> str:
    """The verb that the head of a command names."""
    first = next(token.lower() for token in head if token.lower() in WORDS)
    noun = next((token.lower() for token in head if token.type in _NOUNS), "")
    return f"{first} {noun}" if f"{first} {noun}" in VERBS else first


def _command(source: Source, parts: list[Token | Tree[Token]], loops: tuple[str, ...]) -> Command:
    head = [part for part in parts if isinstance(part, Token)]
    verb = _verb(head)
    tokens = {token.type: token for token in head}
    off, label = tokens.get("OFF"), tokens.get("LABEL")
    if off is not None and not VERBS[verb].triggers_off:
        able = either(name for name, what in VERBS.items() if what.triggers_off)
        raise source.error(_start(off), f"no 'triggers off' in {verb} (only in {able})")
    begun = len(source.placeholders)
    trees = [part for part in parts if isinstance(part, Tree)]
    values, places = _fields(source, verb, trees)
    for name in VERBS[verb].required:
        others = {other for pair in VERBS[verb].exclusive if name in pair for other in pair}
        if not values.keys() & {name, *others}:
            raise source.error(_start(head[0]), f"the field '{name}' in this {verb}", NOTHING)
    return Command(
        verb,
        values,
        off is not None,
        *source.place(_start(head[0])),
        places,
        None if label is None else _label(source, label, (*OWN, *loops)),
        tuple(source.placeholders[begun:]),
        "BLOCK" in tokens and all(tree.data == "field" for tree in trees),
    )


def _fields(source: Source, verb: str, trees: list[Tree[Token]]) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """The fields of a command -> their values and the places of these."""
    fields, spelled = VERBS[verb].fields, {name.lower(): name for name in VERBS[verb].fields}
    lines: dict[str, int] = {}
    values: dict[str, Any] = {}
    places: dict[str, tuple[int, int]] = {}
    for tree in trees:
        written, value = (child for child in tree.children if isinstance(child, Token))
        at = _start(written)
        name = spelled.get(written.lower())
        if name is None:
            allowed = f"a field of {verb} ({', '.join(spelled.values())})"
            triggerless = VERBS[verb].triggers_off and _TRIGGERLESS.fullmatch(written)
            hint = _NO_TRIGGERS if triggerless else did_you_mean(written, spelled.values())
            raise source.error(at, allowed, hint=hint)
        if name in lines:
            raise source.error(at, "each field once", f"'{name}' again after line {lines[name]}")
        for pair in VERBS[verb].exclusive:
            if name in pair and not lines.keys().isdisjoint(pair):
                raise source.error(at, f"either '{pair[0]}' or '{pair[1]}'", "both")
        lines[name] = source.place(at)[0]
        values[name] = read_value(source, value, fields[name])
        places[name] = source.place(_start(value))
    return values, places
