"""`python -m pipelines run|compile|submit|follow`."""

from lrf_core.console import interrupts

if __name__ == "__main__":
    # Before anything else is imported: that takes a second, in which Ctrl-C may come.
    interrupts.install()
    from pipelines.cli import main

    main()
