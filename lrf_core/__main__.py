"""`python -m lrf_core` is `lrf`."""

from lrf_core.cli import main

main()
