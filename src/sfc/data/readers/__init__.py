"""Readers of data-set formats: one file each, and the table of them."""

from typing import TYPE_CHECKING

from sfc.data.config import DataConfig
from sfc.data.readers.coco import CocoReader
from sfc.data.readers.folders import FolderReader
from sfc.data.readers.reader import Reader as Reader
from sfc.data.readers.synthetic import SyntheticReader
from sfc.data.readers.table import TableReader
from sfc.data.readers.voc import VocReader
from sfc.settings.parts import with_parts

READERS: dict[str, Reader] = {
    "table": TableReader(),
    "voc": VocReader(),
    "coco": CocoReader(),
    "folders": FolderReader(),
    "synthetic": SyntheticReader(),
}
"""By the name that `data.format` gives; an unknown folder is shown to them in this order."""

if TYPE_CHECKING:
    DataSection = DataConfig
else:
    DataSection = with_parts(DataConfig, READERS, choice="format")
