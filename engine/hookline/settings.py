"""Every setting of the engine and the server: one table, with its environment variable and its meaning."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from hookline.clock import parse_duration
from hookline.errors import Flaw, Invalid
from hookline.item import check_namespace
from hookline.keys import PARTITIONS_MAX

PREFIX = "HOOKLINE_"
_ORIGIN = re.compile(r"\*|https?://[^/\s,?#@]+", re.ASCII)
STORE_SCHEMES = ("redis://", "rediss://", "unix://")


def _setting(
    default: Any, text: str, least: float | None = None, most: float | None = None, *, secret: bool = False
) -> Any:
    return field(default=default, repr=not secret, metadata={"help": text, "least": least, "most": most})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Durations are seconds here, and may carry a unit in the environment (``500ms``, ``10m``)."""

    store_url: str | None = _setting(
        None,
        "redis://, rediss:// or unix:// URL of a store, or of nodes of a cluster, separated by commas; none: the"
        " embedded one",
        secret=True,
    )
    data: Path = _setting(Path("hookline-data"), "directory of the embedded store and of the secret")
    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8080, "port to listen on; 0 picks a free one", 0, 65_535)
    namespace: str = _setting("default", "the tenant that this server serves")
    partitions: int | None = _setting(
        None,
        "partitions of a new namespace, fixed once it has been created; none: as created, and for a new one 16 on a"
        " cluster, else 1",
        1,
        PARTITIONS_MAX,
    )
    secret_key: str | None = _setting(
        None, "32 bytes, as hex or base64, that encrypt API keys; none: <data>/secret", secret=True
    )
    call_timeout: float = _setting(5.0, "longest wait for one answer of the store; asked again once after that", 0.01)
    connections: int = _setting(16, "connections to the store, at most", 1)
    cors_origins: tuple[str, ...] = _setting(
        (), "sites whose pages may use the API in a browser, such as https://app.example; * is all of them"
    )
    body_max: int = _setting(1_048_576, "bytes of a request's body, at most", 1)
    head_max: int = _setting(32_768, "bytes of a request's line and headers together, at most", 256)
    target_max: int = _setting(8192, "bytes of a request's path and query, at most", 64)
    headers_max: int = _setting(100, "headers of a request, at most", 1)
    head_timeout: float = _setting(10.0, "longest time that the line and the headers of a request may take", 0.01)
    stall_timeout: float = _setting(
        10.0, "longest time that a body, or the reading of an answer, may fall behind HOOKLINE_TRANSFER_RATE", 0.01
    )
    transfer_rate: int = _setting(1000, "bytes a second in which a client sends a body or reads an answer, at least", 1)
    keep_alive: float = _setting(75.0, "longest time that a connection is kept open between two requests", 0.01)
    clients_max: int = _setting(10_000, "connections of clients at once", 1)
    clients_per_address: int = _setting(1000, "connections at once from one address, or from one /64 of IPv6", 1)
    requests_max: int = _setting(2000, "requests under way at once, those that wait included; more are refused", 1)
    rate_limit: int = _setting(0, "requests that one caller may make in HOOKLINE_RATE_WINDOW; 0 is no limit", 0)
    rate_window: float = _setting(60.0, "the time in which so many requests may be made", 1)
    outbox_max: int = _setting(1_000_000, "webhook events of a partition that may wait; more are refused", 0)
    relay_concurrency: int = _setting(64, "webhooks in flight at once", 1)
    lane_concurrency: int = _setting(16, "webhooks in flight at once to one endpoint", 1)
    delivery_timeout: float = _setting(15.0, "total time of one delivery attempt", 0.01)
    delivery_schedule: tuple[float, ...] = _setting(
        (1, 5, 30, 120, 600, 3600, 10_800, 28_800, 86_400),
        "waits between delivery attempts, in order, jittered by 20 %",
    )
    egress_allow: tuple[str, ...] = _setting(
        (),
        "networks (CIDR) that webhooks may reach beyond the public ones, and loopback if the server listens there",
    )
    tick: float = _setting(1.0, "how often due items are promoted, and orchestrations and retries looked for", 0.01)

    def __post_init__(self) -> None:
        flaws = [flaw for setting in fields(self) for flaw in _flaws(setting, getattr(self, setting.name))]
        if flaws:
            raise Invalid(*flaws)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> Settings:
        """Settings from ``HOOKLINE_*``; what is given (and not None) wins.

        Raises:
            Invalid: a variable cannot be read as its setting; every bad one is named.
        """
        values: dict[str, Any] = {}
        flaws: list[Flaw] = []
        for setting in fields(cls):
            variable = _variable(setting)
            if given.get(setting.name) is not None:
                values[setting.name] = given[setting.name]
            elif environ.get(variable):
                try:
                    values[setting.name] = _read(setting, environ[variable])
                except ValueError as error:
                    flaws.append(Flaw(f"/{variable}", _explain(setting, error)))
            if setting.name in values:
                flaws.extend(_flaws(setting, values[setting.name]))
        if flaws:
            raise Invalid(*flaws)
        return cls(**values)


def _variable(setting: Field[Any]) -> str:
    return PREFIX + setting.name.upper()


def _flaws(setting: Field[Any], value: Any) -> Iterator[Flaw]:
    """Whether the value of a setting is out of its bounds."""
    least, most, text = (setting.metadata[name] for name in ("least", "most", "help"))
    if setting.name == "store_url" and value is not None and not _are_stores(value):
        schemes = ", ".join(STORE_SCHEMES)
        detail = f"expected URLs, separated by commas, that each begin with one of {schemes} (a comma within: %2C)"
        yield Flaw(f"/{_variable(setting)}", detail)
    elif setting.name == "egress_allow" and not all(map(_is_network, value)):
        yield Flaw(f"/{_variable(setting)}", "expected networks such as 10.1.0.0/16, separated by commas")
    elif setting.name == "cors_origins" and not all(map(_ORIGIN.fullmatch, value)):
        yield Flaw(f"/{_variable(setting)}", "expected origins such as https://app.example, separated by commas, or *")
    elif setting.name == "namespace":
        try:
            check_namespace(value)
        except Invalid as invalid:
            yield Flaw(f"/{_variable(setting)}", invalid.flaws[0].detail)
    elif value is not None and ((least is not None and value < least) or (most is not None and value > most)):
        bounds = f"from {least} on" if most is None else f"from {least} to {most}"
        yield Flaw(f"/{_variable(setting)}", f"expected a number {bounds}: {text}")


def _are_stores(text: str) -> bool:
    return all(url.startswith(STORE_SCHEMES) for url in text.split(","))


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _kind(setting: Field[Any]) -> str:
    return str(setting.type).removesuffix(" | None")


def _read(setting: Field[Any], text: str) -> Any:
    kind = _kind(setting)
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
    return parse_duration(float(bare) if bare.isascii() and bare.replace(".", "", 1).isdigit() else bare) / 1000


def _explain(setting: Field[Any], error: ValueError) -> str:
    # The value is left out: it may be a secret.
    return f"expected a whole number: {setting.metadata['help']}" if _kind(setting) == "int" else str(error)
