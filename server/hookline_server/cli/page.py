"""``docs/configuration.md``, made from the table of settings: ``python -m hookline_server.cli.page``."""

from __future__ import annotations

from dataclasses import Field
from typing import Any

from hookline.configuration import flag, variable
from hookline_server.cli.configuration import default_of, sections

_INTRODUCTION = """\
# Configuration

Made from the table in `engine/hookline/settings.py` by `make docs`: change it there.

A setting comes from the flag of `hookline serve`, else from the environment, else from the file, else from this table.
The file is TOML, named by `--config` or `HOOKLINE_CONFIG`. A setting is called there as its variable is, in lower case
and without `HOOKLINE_`:

```toml
port = 9090
call_timeout = "500ms"
egress_allow = ["10.1.0.0/16", "10.2.0.0/16"]
```

Durations are seconds, or have a unit: `500ms`, `30s`, `10m`, `2h`, `7d`. Lists have commas between, or are arrays in
the file. Relative paths are meant from where the command runs. What cannot be read is refused, with its name, where it
stands and what was expected; so is a name in the file that is no setting. The other commands read the same environment
and file. Secrets are never shown; the key to all of them has no flag, since all users of the machine could read it.
"""


def page() -> str:
    """``docs/configuration.md``."""
    parts = [_INTRODUCTION]
    for heading, rows in sections():
        parts += [f"\n## {heading}\n\n", "| flag | variable | default | meaning |\n|---|---|---|---|\n"]
        parts += map(_line, rows)
    return "".join(parts)


def _line(row: Field[Any]) -> str:
    default = default_of(row)
    cells = [
        f"`{flag(row)}`" if flag(row) else "",
        f"`{variable(row)}`",
        f"`{default}`" if default else "",
        row.metadata["help"].replace("|", "\\|").replace("<", "\\<"),
    ]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    print(page(), end="")
