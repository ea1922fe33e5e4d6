"""The page of a run: tables and pictures from saved scores and stored CAMs."""

from sfc.report.examples import Gallery, Source
from sfc.report.page import write_report

__all__ = ["Gallery", "Source", "write_report"]
