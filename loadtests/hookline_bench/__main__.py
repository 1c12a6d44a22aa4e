"""``python -m hookline_bench``."""

from hookline_bench.cli import app

app(prog_name="hookline bench")
