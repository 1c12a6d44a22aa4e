"""Where settings come from: flags, the environment, a file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hookline import configuration
from hookline.errors import Invalid
from hookline.settings import Settings

CANARY = "canary-7f3a"


def written(tmp_path: Path, text: str) -> dict[str, str]:
    """An environment that names a file with this text."""
    path = tmp_path / "hookline.toml"
    path.write_text(text)
    return {"HOOKLINE_CONFIG": str(path)}


def flaws(environ: dict[str, str], **given: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as invalid:
        Settings.from_env(environ, **given)
    assert CANARY not in str(invalid.value)
    return {flaw.pointer.removeprefix("/"): flaw.detail for flaw in invalid.value.flaws}


def test_a_flag_wins_over_the_environment_that_over_the_file_and_that_over_the_default(tmp_path: Path) -> None:
    environ = written(tmp_path, 'port = 1\nbody_max = 2\ntick = "3s"\n')
    environ |= {"HOOKLINE_PORT": "10", "HOOKLINE_BODY_MAX": "20"}
    found = Settings.from_env(environ, port="100")
    assert (found.port, found.body_max, found.tick, found.connections) == (100, 20, 3.0, 16)


def test_the_flag_names_the_file_before_the_variable_does(tmp_path: Path) -> None:
    environ = written(tmp_path, "port = 1")
    other = tmp_path / "other.toml"
    other.write_text("port = 2")
    assert Settings.from_env(environ, config=str(other)).port == 2
    assert Settings.from_env(environ).port == 1
    assert Settings.from_env({"HOOKLINE_CONFIG": ""}).port == 8080


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("port = 0", "port", 0),
        ('port = "9"', "port", 9),
        ("call_timeout = 2", "call_timeout", 2.0),
        ("call_timeout = 0.25", "call_timeout", 0.25),
        ('call_timeout = "250ms"', "call_timeout", 0.25),
        ('data = "/a b"', "data", Path("/a b")),
        ('store_url = "redis://a,unix://b"', "store_url", "redis://a,unix://b"),
        ('egress_allow = ["10.0.0.0/8", " fd00::/8 "]', "egress_allow", ("10.0.0.0/8", "fd00::/8")),
        ('egress_allow = "10.0.0.0/8,fd00::/8"', "egress_allow", ("10.0.0.0/8", "fd00::/8")),
        ("egress_allow = []", "egress_allow", ()),
        ('delivery_schedule = [1, "30s", 0.5]', "delivery_schedule", (1.0, 30.0, 0.5)),
    ],
)
def test_from_the_file(tmp_path: Path, line: str, name: str, value: object) -> None:
    found = getattr(Settings.from_env(written(tmp_path, line)), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("line", "name", "detail"),
    [
        ("prot = 80", "prot", "expected a setting: perhaps port"),
        (f'zzz = "{CANARY}"', "zzz", "expected a setting: docs/configuration.md lists them"),
        ('"a\\u001b[1m" = 1', r"'a\x1b[1m'", "expected a setting: docs/configuration.md lists them"),
        ('config = "other.toml"', "config", "expected a setting: docs/configuration.md lists them"),
        ("port = true", "port", "expected a whole number: port to listen on"),
        ("port = 80.5", "port", "expected a whole number: port to listen on"),
        ("port = 65536", "port", "expected a number from 0 to 65535"),
        ("[port]\nnumber = 80", "port", "expected a whole number"),
        ("host = 1", "host", "expected a text: address to listen on"),
        ("data = []", "data", "expected a text: directory"),
        ("tick = 1979-05-27", "tick", "expected seconds as a number, or a duration such as 500ms"),
        ("tick = true", "tick", "expected seconds"),
        ("tick = nan", "tick", "expected seconds"),
        ("egress_allow = 8", "egress_allow", "expected a list: networks"),
        ("egress_allow = [8]", "egress_allow", "expected a text"),
        (f'egress_allow = ["{CANARY}"]', "egress_allow", "expected networks such as 10.1.0.0/16"),
        ('delivery_schedule = ["soon"]', "delivery_schedule", "expected seconds"),
        (f'store_url = "http://{CANARY}"', "store_url", "expected URLs"),
        ('namespace = "{}"', "namespace", "expected"),
    ],
)
def test_a_bad_value_is_named_with_its_file(tmp_path: Path, line: str, name: str, detail: str) -> None:
    environ = written(tmp_path, line)
    ((named, told),) = flaws(environ).items()
    assert named == f"{environ['HOOKLINE_CONFIG']}: {name}"
    assert told.startswith(detail)


@pytest.mark.parametrize("text", [f"secret_key = {CANARY}", "port 8080", "\x00", "port = 1\nport = 2"])
def test_a_file_that_is_no_toml(tmp_path: Path, text: str) -> None:
    environ = written(tmp_path, text)
    assert flaws(environ)[environ["HOOKLINE_CONFIG"]].startswith("expected TOML, such as port = 8080: ")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'host = "\xff"')
    for name, detail in [
        ("none", "expected a file that can be read: No such file"),
        (".", "expected a file that can be read: Is a directory"),
        ("latin", "expected TOML, such as port = 8080: no UTF-8"),
    ]:
        path = str(tmp_path / name)
        assert flaws({}, config=path)[str(Path(path))].startswith(detail)


def test_everything_that_is_bad_is_named_where_it_stands(tmp_path: Path) -> None:
    environ = written(tmp_path, 'tick = 0\nhots = "a"\nport = "x"\n') | {"HOOKLINE_CALL_TIMEOUT": "y"}
    file = environ["HOOKLINE_CONFIG"]
    named = flaws(environ, body_max="0", store_url="http://a", port="1")
    assert named.keys() == {f"{file}: tick", f"{file}: hots", "HOOKLINE_CALL_TIMEOUT", "--body-max", "--store"}


def test_names() -> None:
    settings = {setting.name: setting for setting in fields(Settings)}
    assert configuration.flag(settings["call_timeout"]) == "--call-timeout"
    assert configuration.flag(settings["store_url"]) == "--store"
    assert configuration.flag(settings["secret_key"]) == ""
    assert configuration.variable(settings["call_timeout"]) == "HOOKLINE_CALL_TIMEOUT"
