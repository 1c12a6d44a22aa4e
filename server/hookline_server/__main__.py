"""``python -m hookline_server`` is ``hookline``."""

from hookline_server.cli import main

main()
