"""The store's scripts, and the library of functions that the store gets them as.

A script is a real ``.lua`` file that begins with an executable header and returns what a call of it runs::

    #!lua flags=allow-oom
    -- One line of what it does.
    -- keys: partition
    -- args: now_ms:int call_id request:msgpack
    -- use: clock item index

    return function()
      ...
    end

``keys`` and ``args`` are variables of those names (``:int`` is a number, or nil where the argument is empty;
``:msgpack`` is decoded), ``use`` names the helpers ``lib/<name>.lua`` that it works with. A line ``-- drain: yes``
makes a second function ``<name>_drain`` of the same script that also runs at the memory limit.

All of it is one library: the store compiles it once, and makes its functions and constants once, so a call costs what
it does and no more. What a helper keeps for a call it makes anew in its ``reset``, which runs before each call; nothing
else of a call may outlive it. What stands outside of functions runs as the library is loaded: without the store's
commands, and without Lua's own libraries.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

NAMED = "hookline_"
"""What the names of our libraries begin with."""
NAMED_FULLY = re.compile(rf"{NAMED}[0-9a-f]{{16}}")
"""A name of one of them."""

_SHEBANG = re.compile(r"#!lua(?: flags=([a-z,-]+))?")
_ReadLib = Callable[[str], str]
_HEADER = re.compile(r"-- (keys|args|use|drain): ?(.*)")
_GLOBALS = "redis, cmsgpack, string, table, math, ipairs, pairs, next, type, tonumber, unpack, pcall"
_BIND = f"""\
local function globals()
return {_GLOBALS}
end
local {_GLOBALS}
local function bind()
{_GLOBALS} = globals()
end"""
"""What is the store's own, as variables of the library: in a function, each global is looked for by way of a metatable.
They are there only when a call runs.
"""
_DECODERS = {"": "{0}", "int": "tonumber({0})", "msgpack": "cmsgpack.unpack({0})"}


class HeaderError(Exception):
    """A script's header is not of the form that the loader reads. The message names file and line."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script. ``function`` is what FCALL names."""

    name: str
    function: str
    flags: frozenset[str]
    keys: tuple[str, ...]
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Library:
    """Scripts as FUNCTION LOAD takes them: ``source``. The name is that of the text: no release changes another's."""

    name: str
    source: str
    scripts: Mapping[str, Script]


@cache
def library() -> Library:
    """The library of this release."""
    files = {file.name for file in resources.files(__name__).iterdir() if file.name.endswith(".lua")}
    return compose({file.removesuffix(".lua"): _read(file) for file in sorted(files)}, _read_lib)


def load(name: str) -> Script:
    """The script ``name``, of this release.

    Raises:
        KeyError: there is no such script.
    """
    return library().scripts[name]


def compose(texts: Mapping[str, str], read_lib: _ReadLib) -> Library:
    """Make a library of scripts, by name; ``read_lib`` gives a helper's text (the tests pass their own).

    Raises:
        HeaderError: a header is malformed, or a helper is missing or uses itself.
    """
    parsed = [_Parsed(name, text, read_lib) for name, text in texts.items()]
    unnamed = _written(NAMED, parsed)
    return _written(NAMED + hashlib.sha1(unnamed.source.encode(), usedforsecurity=False).hexdigest()[:16], parsed)


def _written(library: str, parsed: Sequence[_Parsed]) -> Library:
    """The library of that name."""
    helpers = {name: text for each in parsed for name, text in each.helpers.items()}
    variables = list(dict.fromkeys(name for each in parsed for name in each.values))
    scripts = {made.name: made for each in parsed for made in each.scripts(library)}
    parts = [
        f"#!lua name={library}",
        *(f"local {each.local}" for each in parsed),
        "do",
        _BIND,
        f"local {', '.join(variables)}",
        *(_module(name, text, helpers) for name, text in helpers.items()),
        *(each.body(variables, helpers) for each in parsed),
        "end",
        *(each.registered(made) for each in parsed for made in each.scripts(library)),
    ]
    return Library(library, "\n".join([*parts, ""]), scripts)


def _module(name: str, text: str, helpers: Mapping[str, str]) -> str:
    """A helper, as the value of the variable that has its name."""
    return f"local {name} = (function()\n{_hidden(text, helpers)}{text}\nreturn {name}\nend)()"


def _hidden(text: str, helpers: Mapping[str, str]) -> str:
    """A line that hides the helpers that a text does not say it uses: they would not be reset before its calls."""
    used = _read_header(text).get("use", "").split()
    others = [name for name in helpers if name not in used]
    return f"local {', '.join(others)}\n" if others else ""


class _Parsed:
    """One script: what its header says, and its helpers, each after those it uses."""

    def __init__(self, name: str, text: str, read_lib: _ReadLib) -> None:
        shebang, _, self._text = text.partition("\n")
        match = _SHEBANG.fullmatch(shebang)
        if match is None:
            raise HeaderError(f"{name}.lua:1: expected '#!lua' or '#!lua flags=...'")
        header = _read_header(self._text)
        self._name = name
        self._flags = frozenset((match[1] or "").split(",")) - {""}
        self._drains = header.get("drain") == "yes"
        self._keys, self._args = header.get("keys", "").split(), header.get("args", "").split()
        if not self._keys:
            raise HeaderError(f"{name}.lua: expected a line '-- keys: ...': a script without keys cannot be routed")
        self.values = {key: f"keys[{place}]" for place, key in enumerate(self._keys, 1)}
        for place, arg in enumerate(self._args, 1):
            label, _, kind = arg.partition(":")
            if kind not in _DECODERS:
                raise HeaderError(f"{name}.lua: argument {arg}: expected :int, :msgpack or nothing")
            self.values[label] = _DECODERS[kind].format(f"args[{place}]")
        self.helpers: dict[str, str] = {}
        self._add(header.get("use", "").split(), read_lib, (f"{name}.lua",))

    def _add(self, names: list[str], read_lib: _ReadLib, chain: tuple[str, ...]) -> None:
        for name in names:
            file = f"lib/{name}.lua"
            if file in chain:
                raise HeaderError(f"{file}: uses itself by way of {' -> '.join(chain)}")
            if name in self.helpers:
                continue
            try:
                text = read_lib(name)
            except FileNotFoundError:
                raise HeaderError(f"{chain[-1]}: no helper {file}") from None
            self._add(_read_header(text).get("use", "").split(), read_lib, (*chain, file))
            self.helpers[name] = text

    def body(self, variables: list[str], helpers: Mapping[str, str]) -> str:
        """The function that a call runs: it sets all variables of the library, those that it does not have to nil."""
        values = ", ".join(self.values.get(name, "nil") for name in variables)
        resets = [f"{name}.reset()" for name, text in self.helpers.items() if f"\nfunction {name}.reset()" in text]
        return "\n".join(
            (
                "do",
                f"local run = (function()\n{_hidden(self._text, helpers)}{self._text}\nend)()",
                f"function {self.local}(keys, args)",
                "if not redis then",
                "bind()",
                "end",
                f"{', '.join(variables)} = {values}",
                *resets,
                "return run()",
                "end",
                "end",
            )
        )

    def scripts(self, library: str) -> list[Script]:
        """The script, and the one that also drains."""
        keys, args = tuple(self._keys), tuple(arg.partition(":")[0] for arg in self._args)
        made = [Script(self._name, f"{library}_{self._name}", self._flags, keys, args)]
        if self._drains:
            drain = f"{self._name}_drain"
            made.append(Script(drain, f"{library}_{drain}", self._flags | {"allow-oom"}, keys, args))
        return made

    @property
    def local(self) -> str:
        """The variable that holds the function."""
        return f"run_{self._name}"

    def registered(self, script: Script) -> str:
        """The line that gives the function to the store, as one of its scripts."""
        flags = ", ".join(f"'{flag}'" for flag in sorted(script.flags))
        named = f"function_name = '{script.function}', callback = {self.local}"
        return f"redis.register_function{{ {named}, flags = {{ {flags} }} }}"


def _read_header(text: str) -> dict[str, str]:
    header: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        match = _HEADER.fullmatch(line.rstrip())
        if match:
            header[match[1]] = match[2].strip()
    return header


@cache
def _read_lib(name: str) -> str:
    return _read(f"lib/{name}.lua")


def _read(path: str) -> str:
    return resources.files(__name__).joinpath(path).read_text(encoding="utf-8")
