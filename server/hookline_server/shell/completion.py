"""Completion at the prompt: heads of commands, fields, keys, words to choose from, and names for placeholders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from hookline_server.command.verbs import KINDS, VERBS
from hookline_server.shell.heads import HEADS, LEAD, LOOP, verb_of

_FIELD = re.compile(r"(?:^|\s)(\w[\w-]*)\s*:\s*(\S*)$")
_WORD = re.compile(r"[\w-]*$")
_OPEN_PLACEHOLDER = re.compile(r"\[(\w*)$")
_INLINE = re.compile(
    r"\b(?:with|where|of|and|pause|resume|off)\s+[\w-]*$|^[^:]*\b(?:with|where|of|off)\s*:\s+[\w-]*$", re.IGNORECASE
)
_NAME_OF_FIELD = re.compile(r"(?:^|\s)(\w[\w-]*)\s*:", re.MULTILINE)


class CommandCompleter(Completer):
    """Completes from the tables of the language; ``keys`` and ``names`` are those known at the moment."""

    def __init__(self, keys: Callable[[], Iterable[str]], names: Callable[[], Iterable[str]]) -> None:
        self._keys = keys
        self._names = names

    def get_completions(
        self,
        document: Document,
        complete_event: CompleteEvent,  # noqa: ARG002 - as prompt_toolkit calls it
    ) -> Iterator[Completion]:
        """What can stand at the cursor."""
        for text, length in self.candidates(document.text_before_cursor):
            yield Completion(text, start_position=-length)

    def candidates(self, before: str) -> Iterator[tuple[str, int]]:
        """Text before the cursor -> what can follow, and how many characters before the cursor that replaces."""
        *above, line = before.split("\n")
        verb, used = _command(above, line)
        if found := _OPEN_PLACEHOLDER.search(line):
            yield from _begun(self._names(), found[1])
        elif (found := _FIELD.search(line)) and not (verb_of(line) and _INLINE.search(line)):
            yield from _begun(self._values(verb, found[1]), found[2])
        else:
            if verb and (_INLINE.search(line) or (above and verb_of(line) is None)):
                word = _WORD.search(line)
                fields = (f"{name}: " for name in VERBS[verb].fields if name.lower() not in used)
                yield from _begun(fields, word[0] if word else "")
            yield from _heads(line)

    def _values(self, verb: str | None, name: str) -> Iterable[str]:
        fields = {field.lower(): kind for field, kind in VERBS[verb].fields.items()} if verb else {}
        kind = fields.get(name.lower(), "").rstrip("?")
        if name.lower() == "key":
            return self._keys()
        if kind == "boolean":
            return ("true", "false")
        return kind.split("|") if kind and kind not in KINDS else ()


def _command(above: list[str], line: str) -> tuple[str | None, set[str]]:
    """The verb of the command that the cursor is in, and the fields that it has so far."""
    lines = [*above, line]
    for place in range(len(lines) - 1, -1, -1):
        verb = verb_of(lines[place])
        if verb:
            return verb, {name.lower() for name in _NAME_OF_FIELD.findall("\n".join(lines[place:]))}
    return None, set()


def _heads(line: str) -> Iterator[tuple[str, int]]:
    lead = LEAD.match(line)
    begun = " ".join(line[lead.end() if lead else 0 :].split()).lower()
    begun += " " if begun and line.endswith(" ") else ""
    phrases = (*(head for heads in HEADS.values() for head in heads), LOOP, "end")
    for phrase in phrases:
        if phrase.startswith(begun) and phrase != begun:
            yield phrase, len(line) - (lead.end() if lead else 0)


def _begun(choices: Iterable[str], begun: str) -> Iterator[tuple[str, int]]:
    for choice in choices:
        if choice.lower().startswith(begun.lower()) and choice != begun:
            yield choice, len(begun)
