"""`lrf`, and `python -m lrf_core`."""

from lrf_core.console import interrupts


def main() -> None:
    """Run the command line, which can be interrupted from here on."""
    # Before anything else is imported: that takes a second, in which Ctrl-C may come.
    interrupts.install()
    from lrf_core.commands import app as cli

    cli.main()


if __name__ == "__main__":
    main()
