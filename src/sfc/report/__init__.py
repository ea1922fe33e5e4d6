"""The page of a run: tables and pictures from saved scores and stored CAMs."""

from sfc.report.examples import Source
from sfc.report.page import write_report

__all__ = ["Source", "write_report"]
