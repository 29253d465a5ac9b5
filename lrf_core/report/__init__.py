"""What people read: the HTML report and the tables of the command line."""

from lrf_core.report.html import write_report
from lrf_core.report.plans import plan_rows, unjudged_rows

__all__ = ["plan_rows", "unjudged_rows", "write_report"]
