"""The tree keeps its own rules: direction of imports, sizes, one place per thing."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from hookline_lua import library

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "hookline_lua": ROOT / "lua",
    "hookline": ROOT / "engine",
    "hookline_server": ROOT / "server",
    "hookline_bench": ROOT / "loadtests",
}
MODULES = sorted(path for name, root in PACKAGES.items() for path in (root / name).rglob("*.py"))
LUA = sorted((ROOT / "lua").rglob("*.lua"))
VALUES = (
    *("arguments", "archive", "clock", "codec", "configuration", "cursor", "errors", "figures", "grant", "index"),
    *("item", "keys", "keysettings", "plan", "recurrence", "requirements", "row", "secret", "settings", "sortfield"),
    *("spelling", "trace", "trigger", "url", "where"),
)
"""Inside the engine these import nothing but each other."""
LAYERS = (
    *("outcome", "searches", "link", "feed", "subscription", "sentinel", "storeurl", "nodes", "call", "calls", "once"),
    *("meta", "connection", "together", "group", "bound", "keyring", "wake", "seen", "waiters", "batcher", "away"),
    *("claims", "query", "stats", "agreement", "doctor", "upkeep", "depth", "tally", "registry", "source", "reader"),
    *("repeating", "optimistic", "rule", "bulk", "rules", "orchestrations", "schedules", "rulebook", "datastore"),
    *("limited", "transfer", "operations", "answers", "flow", "ruleflow", "transport", "session", "syncsession"),
    *("clientrules", "client", "syncclient"),
    *("job", "runner", "holding", "progress", "handlers", "worker", "collector", "work"),
    *("keeper", "embedded", "testing"),
)
"""Each imports only what stands before it, and values."""
BY_TYPE = ("bulk", "rules", "orchestrations", "schedules", "rulebook", "clientrules")
"""These know a datastore or a client by its type alone, which in turn has them."""


def imports(path: Path, *, types: bool = True) -> set[str]:
    """What a module imports; without ``types`` not what it does for the type checker alone."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    checked = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    left_out = set() if types else {inner for node in checked for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[1]
    allowed = list(PACKAGES)[: list(PACKAGES).index(package) + 1]
    assert tops(path) & set(PACKAGES) <= set(allowed)


def test_only_the_connection_speaks_redis_py() -> None:
    speaking = [path.stem for path in MODULES if "redis" in tops(path)]
    assert speaking == ["connection", "feed", "link", "nodes", "sentinel", "storeurl", "subscription"]


def test_layers_of_the_engine() -> None:
    engine = ROOT / "engine/hookline"
    ordered = [*VALUES, *LAYERS]
    assert sorted(ordered) == sorted(path.stem for path in engine.glob("[!_]*.py"))
    for place, module in enumerate(ordered):
        allowed = ordered[: max(place, len(VALUES))]
        named = imports(engine / f"{module}.py", types=module not in BY_TYPE)
        own = {name.split(".")[1] for name in named if name.startswith("hookline.")}
        assert own <= set(allowed), f"{module}: {own - set(allowed)}"


@pytest.mark.parametrize("path", [*MODULES, *LUA], ids=lambda path: path.name)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 480
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno <= 70, f"{path.name}: {node.name}"


def test_routes_find_what_they_work_on_by_who_asks() -> None:
    """What stands in ``app.state`` is the server's own namespace, which is not every caller's."""
    routes = (ROOT / "server/hookline_server/routes").glob("*.py")
    assert [path.name for path in routes if "state.datastore" in path.read_text()] == ["health.py"]


def test_every_lua_file_is_used() -> None:
    composed = library().source
    for path in LUA:
        assert path.read_text().splitlines()[-1] in composed, path.name
    assert {path.stem for path in LUA if path.parent.name == "hookline_lua"} == {
        name.removesuffix("_drain") for name in library().scripts
    }


def tracked() -> list[str]:
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()


def test_nothing_is_left_lying_about() -> None:
    for name in tracked():
        path = ROOT / name
        if path.suffix in (".py", ".lua", ".md", ".toml") and path.exists() and path != Path(__file__):
            assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text()), name


def test_the_switches_of_the_tests_are_told_from_settings_and_set_somewhere() -> None:
    """Each is named by the file that reads it, and by the one that sets it: the Makefile, CI, or another test."""
    named: Counter[str] = Counter()
    for path in (ROOT / name for name in tracked() if re.match(r"tests/.*\.(py|toml)$|Makefile|\.ci/run", name)):
        text = path.read_text() if path.exists() else ""
        assert not re.search(r"os\.environ\S*HOOKLINE_(?!TEST_)|HOOKLINE_(?!TEST_)\w+\" (not )?in os\.environ", text), (
            path
        )
        named.update(set(re.findall(r"HOOKLINE_TEST_\w+", text)))
    assert named
    assert not [switch for switch, files in named.items() if files < 2]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def anchors(page: Path) -> set[str]:
    """What links may name of a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", [name for name in tracked() if name.endswith(".md")])
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"
