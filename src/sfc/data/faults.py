"""What a reader does with a fault of one image: refuse the whole data set, or note it and go on."""

from __future__ import annotations

from collections.abc import Callable

from sfc.errors import DataError

OnFault = Callable[[DataError], None]
"""Gets each fault; if it returns, the image at fault is left out. `list.append` collects them all."""


def refuse(fault: DataError) -> None:
    """Raises the first fault: what every stage but `sfc check` wants."""
    raise fault
