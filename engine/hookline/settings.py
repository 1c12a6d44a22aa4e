"""Every setting of the engine and the server: one table, with its environment variable and its meaning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from hookline.clock import parse_duration
from hookline.errors import Flaw, Invalid

PREFIX = "HOOKLINE_"


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Durations are seconds here, and may carry a unit in the environment (``500ms``, ``10m``)."""

    store_url: str | None = _setting(None, "redis://, rediss:// or unix:// URL of a store; none: the embedded one")
    data: Path = _setting(Path("hookline-data"), "directory of the embedded store and of the secret")
    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8080, "port to listen on; 0 picks a free one")
    namespace: str = _setting("default", "the tenant that this server serves")
    partitions: int = _setting(1, "partitions of a new namespace; fixed once it has been created")
    secret_key: str | None = _setting(None, "32 bytes, as hex or base64, that encrypt API keys; none: <data>/secret")
    call_timeout: float = _setting(5.0, "longest wait for one answer of the store; asked again once after that")
    connections: int = _setting(16, "connections to the store, at most")
    body_max: int = _setting(1_048_576, "bytes of a request's body, at most")
    outbox_max: int = _setting(1_000_000, "webhook events of a partition that may wait; more are refused")
    relay_concurrency: int = _setting(64, "webhooks in flight at once")
    lane_concurrency: int = _setting(16, "webhooks in flight at once to one endpoint")
    delivery_timeout: float = _setting(15.0, "total time of one delivery attempt")
    delivery_schedule: tuple[float, ...] = _setting(
        (1, 5, 30, 120, 600, 3600, 10_800, 28_800, 86_400),
        "waits between delivery attempts, in order, jittered by 20 %",
    )
    egress_allow: tuple[str, ...] = _setting((), "networks (CIDR) beyond the public ones that webhooks may reach")
    tick: float = _setting(1.0, "how often due items are promoted, and orchestrations and retries looked for")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> Settings:
        """Settings from ``HOOKLINE_*``; what is given (and not None) wins.

        Raises:
            Invalid: a variable cannot be read as its setting; every bad one is named.
        """
        values: dict[str, Any] = {}
        flaws: list[Flaw] = []
        for setting in fields(cls):
            variable = PREFIX + setting.name.upper()
            if given.get(setting.name) is not None:
                values[setting.name] = given[setting.name]
            elif environ.get(variable):
                try:
                    values[setting.name] = _read(setting, environ[variable])
                except ValueError as error:
                    flaws.append(Flaw(f"/{variable}", _explain(setting, error)))
        if flaws:
            raise Invalid(*flaws)
        return cls(**values)


def _read(setting: Field[Any], text: str) -> Any:
    kind = str(setting.type)
    if kind == "int":
        return int(text)
    if kind == "float":
        return _seconds(text)
    if kind == "Path":
        return Path(text)
    if kind == "tuple[float, ...]":
        return tuple(_seconds(part) for part in text.split(",") if part.strip())
    if kind == "tuple[str, ...]":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _seconds(text: str) -> float:
    bare = text.strip()
    return parse_duration(float(bare) if bare.replace(".", "", 1).isdigit() else bare) / 1000


def _explain(setting: Field[Any], error: ValueError) -> str:
    # The value is left out: it may be a secret.
    return f"expected a whole number: {setting.metadata['help']}" if setting.type == "int" else str(error)
