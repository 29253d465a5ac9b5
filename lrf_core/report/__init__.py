"""What people read: the HTML report and the tables of the command line."""

from lrf_core.report.html import write_report

__all__ = ["write_report"]
