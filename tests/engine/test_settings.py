"""Settings from the environment, and what is no setting."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from hookline.errors import Invalid
from hookline.settings import Settings

CANARY = "canary-7f3a"
SENTINELS = "redis+sentinel://u:p@a:1,b,[::1]:2/main/3?sentinel_password=x"


@pytest.mark.parametrize(
    ("environ", "given", "name", "value"),
    [
        ({}, {}, "port", 8080),
        ({"HOOKLINE_PORT": ""}, {}, "port", 8080),
        ({"HOOKLINE_PORT": "0"}, {}, "port", 0),
        ({"HOOKLINE_PORT": "9"}, {"port": 10}, "port", 10),
        ({"HOOKLINE_PORT": "9"}, {"port": None}, "port", 9),
        ({"HOOKLINE_PORT": "x"}, {"port": 10}, "port", 10),
        ({"PORT": "9"}, {}, "port", 8080),
        ({"HOOKLINE_STORE_URL": "redis://a"}, {}, "store_url", "redis://a"),
        ({"HOOKLINE_STORE_URL": "redis://a,unix://b"}, {}, "store_url", "redis://a,unix://b"),
        ({"HOOKLINE_STORE_URL": SENTINELS}, {}, "store_url", SENTINELS),
        ({"HOOKLINE_DATA": "/a b"}, {}, "data", Path("/a b")),
        ({"HOOKLINE_NAMESPACE": "tenant-1"}, {}, "namespace", "tenant-1"),
        ({"HOOKLINE_PARTITIONS": "256"}, {}, "partitions", 256),
        ({}, {}, "partitions", None),
        ({"HOOKLINE_CALL_TIMEOUT": "2"}, {}, "call_timeout", 2.0),
        ({"HOOKLINE_CALL_TIMEOUT": " 0.25 "}, {}, "call_timeout", 0.25),
        ({"HOOKLINE_CALL_TIMEOUT": "250ms"}, {}, "call_timeout", 0.25),
        ({"HOOKLINE_TICK": "2m"}, {}, "tick", 120.0),
        ({"HOOKLINE_DELIVERY_SCHEDULE": "1, 30s,2h,"}, {}, "delivery_schedule", (1.0, 30.0, 7200.0)),
        ({"HOOKLINE_EGRESS_ALLOW": "10.0.0.0/8, fd00::/8"}, {}, "egress_allow", ("10.0.0.0/8", "fd00::/8")),
        (
            {"HOOKLINE_CORS_ORIGINS": "https://app.example, http://[::1]:3000"},
            {},
            "cors_origins",
            ("https://app.example", "http://[::1]:3000"),
        ),
        ({"HOOKLINE_CORS_ORIGINS": "*"}, {}, "cors_origins", ("*",)),
        ({"HOOKLINE_HOSTS": "queue.example, [fd00::1]"}, {}, "hosts", ("queue.example", "[fd00::1]")),
    ],
)
def test_from_the_environment(environ: dict[str, str], given: dict[str, Any], name: str, value: object) -> None:
    found = getattr(Settings.from_env(environ, **given), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("variable", "values"),
    [
        ("HOOKLINE_PORT", [CANARY, "1.5", "-1", "65536", "0x10"]),
        ("HOOKLINE_NAMESPACE", ["A", "a b", "{a}", "a:b", CANARY * 10]),
        ("HOOKLINE_PARTITIONS", [CANARY, "0", "257", "-8"]),
        ("HOOKLINE_CONNECTIONS", ["0", "many"]),
        ("HOOKLINE_BODY_MAX", ["0", "1MB"]),
        ("HOOKLINE_CALL_TIMEOUT", [CANARY, "-1", "0", "5 parsecs", "²", "1.2.3", "nan"]),
        ("HOOKLINE_TICK", ["0", "0ms"]),
        ("HOOKLINE_STORE_URL", [f"http://{CANARY}", "localhost:6379", "redis://a:1,b:2", "redis://a,"]),
        ("HOOKLINE_STORE_URL", [f"redis+sentinel://{CANARY}", "redis+sentinel:///x", "unix+sentinel://a/b"]),
        ("HOOKLINE_EGRESS_ALLOW", [CANARY, "10.0.0.0/8,10.0.0.1/8"]),
        ("HOOKLINE_EGRESS_PROXY", [CANARY, "socks5://a", "http://a/path", f"http://u:{CANARY}@"]),
        ("HOOKLINE_CORS_ORIGINS", [CANARY, "https://app.example/", "*,app.example", "file://x"]),
        ("HOOKLINE_HOSTS", [f"{CANARY}:8080", f"http://{CANARY}", "queue.example/", "*", "fd00::1", "a b"]),
        ("HOOKLINE_DELIVERY_SCHEDULE", [f"1,{CANARY}", "1;2", "1,-2"]),
    ],
)
def test_bad_values_are_named_and_not_shown(variable: str, values: list[str]) -> None:
    for value in values:
        with pytest.raises(Invalid) as invalid:
            Settings.from_env({variable: value})
        assert [flaw.pointer for flaw in invalid.value.flaws] == [f"/{variable}"]
        assert CANARY not in str(invalid.value)
        assert "²" not in str(invalid.value)
        assert "expected " in invalid.value.flaws[0].detail


def test_every_bad_value_is_named() -> None:
    environ = {"HOOKLINE_PORT": "x", "HOOKLINE_TICK": "0", "HOOKLINE_NAMESPACE": "{}", "HOOKLINE_CALL_TIMEOUT": "y"}
    with pytest.raises(Invalid) as invalid:
        Settings.from_env(environ, partitions=0)
    assert {flaw.pointer for flaw in invalid.value.flaws} == {*(f"/{name}" for name in environ), "/HOOKLINE_PARTITIONS"}


def test_in_python_too() -> None:
    with pytest.raises(
        Invalid, match=r"/HOOKLINE_NAMESPACE: .*; /HOOKLINE_PARTITIONS: expected a number from 1 to 256"
    ):
        Settings(namespace="a}b", partitions=1000)
    with pytest.raises(Invalid, match="HOOKLINE_CALL_TIMEOUT"):
        replace(Settings(), call_timeout=0)


def test_secrets_are_not_shown() -> None:
    settings = Settings(secret_key=CANARY, store_url=f"redis://:{CANARY}@host")
    assert CANARY not in repr(settings)
    assert CANARY not in str(settings)


def test_each_setting_says_what_it_is() -> None:
    assert all(setting.metadata["help"] for setting in fields(Settings))
