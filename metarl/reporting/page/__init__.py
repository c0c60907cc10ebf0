"""One HTML page about several runs: `write_report` writes it, a file a part of it."""

from metarl.reporting.page.report import PAGE, Subject, write_report

__all__ = ["PAGE", "Subject", "write_report"]
