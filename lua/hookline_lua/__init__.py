"""The store's scripts and their loader.

A script is a real ``.lua`` file that begins with an executable header::

    #!lua flags=allow-oom
    -- One line of what it does.
    -- keys: partition
    -- args: now_ms:int call_id request:msgpack
    -- use: clock item index

``keys`` and ``args`` become locals of those names (``:int`` is a number, or nil where the argument is empty;
``:msgpack`` is decoded), ``use`` prepends ``lib/<name>.lua`` and what those use in turn, each once. A helper with a
line ``-- load: late`` is made when something of it is first used: most calls need little of what there is, and to make
its functions anew costs each of them. A line ``-- drain: yes`` makes a second script ``<name>_drain`` of the same
source that also runs at the memory limit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources

SCRIPTS = (
    "backfill",
    "backfill_drain",
    "claim",
    "configure",
    "create",
    "create_drain",
    "delete",
    "depth",
    "find",
    "inspect",
    "names",
    "once",
    "patch",
    "patch_drain",
    "relay_done",
    "relay_take",
    "relay_turn",
    "restore",
    "settle",
    "stats",
    "sweep",
)
"""Every script that :func:`load` knows."""

_SHEBANG = re.compile(r"#!lua(?: flags=([a-z,-]+))?")
_ReadLib = Callable[[str], str]
_HEADER = re.compile(r"-- (keys|args|use|drain|load): ?(.*)")
_DECODERS = {"": "{0}", "int": "tonumber({0})", "msgpack": "cmsgpack.unpack({0})"}


class HeaderError(Exception):
    """A script's header is not of the form that the loader reads. The message names file and line."""


@dataclass(frozen=True, slots=True)
class Script:
    """One composed script. ``sha`` is what EVALSHA names: the version of the script is its text."""

    name: str
    source: str
    sha: str
    flags: frozenset[str]
    keys: tuple[str, ...]
    args: tuple[str, ...]


@cache
def load(name: str) -> Script:
    """Compose the script ``name``.

    Raises:
        HeaderError: the header is malformed, or a helper is missing or uses itself.
        FileNotFoundError: there is no such script.
    """
    base = name.removesuffix("_drain")
    return compose(name, _read(f"{base}.lua"), _read_lib)


def compose(name: str, text: str, read_lib: _ReadLib) -> Script:
    """Compose a script from its text; ``read_lib`` gives a helper's text by name (the tests pass their own)."""
    shebang, _, body = text.partition("\n")
    match = _SHEBANG.fullmatch(shebang)
    if match is None:
        raise HeaderError(f"{name}.lua:1: expected '#!lua' or '#!lua flags=...'")
    header = _read_header(body)
    flags = set((match[1] or "").split(",")) - {""}
    if name.endswith("_drain"):
        if header.get("drain") != "yes":
            raise HeaderError(f"{name}: the script has no line '-- drain: yes'")
        flags.add("allow-oom")
    keys, args = header.get("keys", "").split(), header.get("args", "").split()
    if not keys:
        raise HeaderError(f"{name}.lua: expected a line '-- keys: ...': a script without keys cannot be routed")
    parts = [f"#!lua flags={','.join(sorted(flags))}" if flags else "#!lua"]
    parts += [f"local {key} = KEYS[{place}]" for place, key in enumerate(keys, 1)]
    for place, arg in enumerate(args, 1):
        label, _, kind = arg.partition(":")
        if kind not in _DECODERS:
            raise HeaderError(f"{name}.lua: argument {arg}: expected :int, :msgpack or nothing")
        parts.append(f"local {label} = {_DECODERS[kind].format(f'ARGV[{place}]')}")
    parts += _arranged(_helpers(header.get("use", "").split(), read_lib, (f"{name}.lua",), set()))
    source = "\n".join([*parts, body])
    return Script(
        name=name,
        source=source,
        sha=hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(),
        flags=frozenset(flags),
        keys=tuple(keys),
        args=tuple(arg.partition(":")[0] for arg in args),
    )


_LATE = """\
local load_late
local function late()
  return setmetatable({{}}, {{ __index = function(helper, name)
    load_late()
    return helper[name]
  end }})
end
local {} = {}"""
_LOADED = """\
function load_late()
{}
end"""
_EACH = """\
local loaded = (function()
{1}
return {0}
end)()
setmetatable({0}, {{ __index = loaded, __newindex = loaded }})"""


def _arranged(helpers: list[tuple[str, str]]) -> list[str]:
    """Helpers -> the parts of a script: those that load late stand in one function, behind the others."""
    late = [(name, text) for name, text in helpers if _read_header(text).get("load") == "late"]
    others = [text for name, text in helpers if (name, text) not in late]
    if not late:
        return others
    names = ", ".join(name for name, _ in late)
    loaded = "\n".join(_EACH.format(name, text) for name, text in late)
    return [_LATE.format(names, ", ".join("late()" for _ in late)), *others, _LOADED.format(loaded)]


def _helpers(names: list[str], read_lib: _ReadLib, chain: tuple[str, ...], done: set[str]) -> list[tuple[str, str]]:
    """Name and text of the named helpers, each after those it uses, none twice."""
    texts: list[tuple[str, str]] = []
    for name in names:
        file = f"lib/{name}.lua"
        if file in chain:
            raise HeaderError(f"{file}: uses itself by way of {' -> '.join(chain)}")
        if name in done:
            continue
        try:
            text = read_lib(name)
        except FileNotFoundError:
            raise HeaderError(f"{chain[-1]}: no helper {file}") from None
        texts += _helpers(_read_header(text).get("use", "").split(), read_lib, (*chain, file), done)
        texts.append((name, text))
        done.add(name)
    return texts


def _read_header(text: str) -> dict[str, str]:
    header: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        match = _HEADER.fullmatch(line.rstrip())
        if match:
            header[match[1]] = match[2].strip()
    return header


def _read_lib(name: str) -> str:
    return _read(f"lib/{name}.lua")


def _read(path: str) -> str:
    return resources.files(__name__).joinpath(path).read_text(encoding="utf-8")
