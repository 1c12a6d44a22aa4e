"""The command line: ``hookline serve | run | shell | orchestrate | receive | demo``, and what an operator needs.

Each command imports what it runs by itself: a short one should not wait for the server's modules to load.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Coroutine
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from hookline import Settings
from hookline.clock import parse_duration
from hookline.errors import HooklineError, Invalid
from hookline.secret import SECRET_FILE, SecretBox, load_key
from hookline.settings import PREFIX

Result = TypeVar("Result")

DEFAULT_URL = f"http://127.0.0.1:{os.environ.get('HOOKLINE_PORT') or 8080}"
_url_option = click.option(
    "--url", default=DEFAULT_URL, envvar="HOOKLINE_URL", show_default=True, help="Address of the server."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hookline")
def main() -> None:
    """Hookline: a datastore whose items are also jobs.

    \b
    Start a server with an embedded store, and try it:
      hookline serve
      hookline demo
    """


def _settings_table() -> str:
    """Every setting as the help of ``serve`` shows it: variable, meaning, default."""
    lines = ["\b", "Settings:"]
    for setting in fields(Settings):
        default = setting.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        lines.append(f"  {PREFIX}{setting.name.upper()}" + (f"  [{shown}]" if shown not in (None, "") else ""))
        lines.append(f"      {setting.metadata['help']}")
    return "\n".join(lines)


@main.command(epilog=_settings_table())
@click.option(
    "--store",
    "store_url",
    help="URL of a Redis or Valkey, or of several nodes of a cluster, with commas between; left out: the embedded one.",
)
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Directory of the data.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, 0 for a free one.  [default: 8080]")
def serve(**given: Any) -> None:
    """Run the server until Ctrl-C.

    Options win over the environment, which has every setting (below). Durations may have a unit: 500ms, 30s, 10m.

    \b
    hookline serve
    hookline serve --port 9090 --data /var/lib/hookline
    hookline serve --store redis://127.0.0.1:6379/0
    """
    from hookline_server.serve import serve as serve_forever

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    settings = _checked(lambda: Settings.from_env(**given))
    _run(serve_forever(settings, click.echo))


_output_option = partial(
    click.option, "--output", type=click.Choice(["json", "table"]), show_default=True, help="How results are shown."
)


@main.command()
@click.argument("file", type=click.File("rb"))
@_url_option
@_output_option(default="json")
def run(file: Any, url: str, output: str) -> None:
    """Run a text of commands: FILE, or - for standard input.

    \b
    echo '/datastore get items with key: jobs' | hookline run --output table -
    """
    from hookline_server import remote

    text = _checked(lambda: file.read().decode(), file.name)
    _run(remote.run_text(url, text, click.echo, output))


@main.command()
@_url_option
@_output_option(default="table")
def shell(url: str, output: str) -> None:
    """A prompt for commands, with history, completion and colours; 'help' there lists them.

    The history is kept in $XDG_STATE_HOME/hookline/history, without texts that may have secrets in them.

    \b
    hookline shell --url http://127.0.0.1:8080
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo("hookline: a shell needs a terminal; 'hookline run -' reads commands from a pipe", err=True)
        sys.exit(2)
    from hookline_server.shell.session import Shell

    _run(Shell(url, output).run())


@main.command()
@click.option("--key", required=True, help="Key whose items are claimed.")
@click.option("--limit", type=click.IntRange(1, 500), default=10, show_default=True, help="Items per run, at most.")
@click.option("--every", default="5m", show_default=True, help="How often, e.g. 30s, 5m, 1h.")
@click.option("--lock-for", default="10m", show_default=True, help="How long a worker has before its lock expires.")
@click.option("--where", default="{}", help='Filters as JSON, e.g. {"type": "report"}.')
@click.option("--once", is_flag=True, help="Run once and stop.")
@_url_option
def orchestrate(**options: Any) -> None:
    """Claim waiting jobs of a key, and those whose lock has expired, with triggers on; again and again.

    \b
    hookline orchestrate --key jobs --limit 10 --every 5m --lock-for 10m
    """
    from hookline_server import remote

    for name in ("every", "lock_for"):
        _checked(lambda name=name: parse_duration(options[name]), f"--{name.replace('_', '-')}")
    options["where"] = _checked(lambda: json.loads(options["where"]), "--where")
    _run(remote.orchestrate(say=click.echo, **options))


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=9000, show_default=True, help="Port, 0 for a free one.")
def receive(port: int) -> None:
    """Show the webhooks that arrive on this machine, each answered with 204, until Ctrl-C.

    \b
    hookline receive --port 9000
    """
    from hookline_server import receiver

    _run(receiver.receive(port, click.echo))


@main.command()
def demo() -> None:
    """Play a job's whole life: server, worker and webhooks, all real and all on this machine. Ends within 30 s."""
    from hookline_server.demo import play

    sys.exit(0 if asyncio.run(play()) else 1)


_store_options = [
    click.option("--store", "store_url", help="URL of a Redis or Valkey; left out: the embedded store in --data."),
    click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Directory of the data."),
]


def _on_a_store(command: Any) -> Any:
    """The options that say which store a command works on, beside a server or without one."""
    for option in reversed(_store_options):
        command = option(command)
    return command


@main.command()
@_on_a_store
@click.option("--repair", is_flag=True, help="Put right what differs; the items themselves are the truth.")
def doctor(repair: bool, **given: Any) -> None:
    """Hold every index against every item, and tell what differs. Safe beside running servers.

    Ends with 0 if nothing differs (any more), with 1 if something does.

    \b
    hookline doctor
    hookline doctor --repair --store redis://127.0.0.1:6379/0
    """
    from hookline_server import maintenance

    settings = _checked(lambda: Settings.from_env(**given))
    sys.exit(0 if _run(maintenance.doctor(settings, repair, click.echo)) else 1)


_api_keys_option = click.option("--without-api-keys", is_flag=True, help="Leave the API keys of triggers out.")


@main.command("export")
@_on_a_store
@_api_keys_option
def write_archive(without_api_keys: bool, **given: Any) -> None:
    """Write all items and settings of a namespace to standard output, as JSON lines. Safe beside running servers.

    API keys stay sealed: they open only where the same secret is, in the same namespace. No token is written.

    \b
    hookline export > items.ndjson
    """
    from hookline_server import maintenance

    settings = _checked(lambda: Settings.from_env(**given))
    output = sys.stdout.buffer
    sys.exit(0 if _run(maintenance.write_archive(settings, output, api_keys=not without_api_keys)) else 1)


@main.command("import")
@click.argument("file", type=click.File("rb"))
@_on_a_store
@click.option("--replace", is_flag=True, help="Replace items and settings that are there; without, they stay.")
@click.option("--strict", is_flag=True, help="Stop at the first line that can't be taken.")
@_api_keys_option
def read_archive(file: Any, replace: bool, strict: bool, without_api_keys: bool, **given: Any) -> None:
    """Read what export wrote: FILE, or - for standard input. A repeat goes on where one was interrupted.

    No triggers fire. Started items keep worker and lock; the tokens of before are void, so such an item can be claimed
    once its lock has passed. Ends with 0 if all of the file is there now.

    \b
    hookline import items.ndjson
    hookline export --store redis://old:6379 | HOOKLINE_NAMESPACE=copy hookline import --without-api-keys -
    """
    from hookline_server import maintenance

    settings = _checked(lambda: Settings.from_env(**given))
    work = maintenance.read_archive(settings, file, replace=replace, api_keys=not without_api_keys, strict=strict)
    sys.exit(0 if _run(work) else 1)


@main.command("signing-secret")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Directory of the data.")
def signing_secret(**given: Any) -> None:
    """Print the secret that webhooks are signed with, for receivers to verify them (Standard Webhooks)."""
    from hookline_server.signature import format_secret

    settings = _checked(lambda: Settings.from_env(**given))
    if settings.secret_key is None and not (settings.data / SECRET_FILE).exists():
        click.echo(
            f"hookline: there is no secret in {settings.data} yet: name the server's --data, or start it", err=True
        )
        sys.exit(1)
    box = _checked(lambda: SecretBox(load_key(settings.secret_key, settings.data)))
    click.echo(format_secret(box.derive(f"webhook-signing:{settings.namespace}")))


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        import uvloop
    except ImportError:
        loop_factory = None
    else:
        loop_factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(work)
    except HooklineError as error:
        click.echo(f"hookline: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _checked(read: Any, option: str = "") -> Any:
    try:
        return read()
    except Invalid as error:
        for flaw in error.flaws:
            click.echo(f"hookline: {flaw.pointer.lstrip('/')}: {flaw.detail}", err=True)
        sys.exit(2)
    except (HooklineError, ValueError) as error:
        click.echo(f"hookline: {option + ': ' if option else ''}{error}", err=True)
        sys.exit(2)
