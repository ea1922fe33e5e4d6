"""Settings of the dense CRF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sfc.settings.limits import Limits


@dataclass(frozen=True)
class CRFConfig:
    """Dense CRF, 10 updates; see `sfc.dense_crf`. Published values for CAMs.

    Args:
        gaussian: standard deviation in pixels and compatibility of the smoothness term.
        bilateral: standard deviation in pixels, in grey levels, and compatibility of the appearance term.
    """

    gaussian: Annotated[tuple[float, float], Limits(0.001)] = (3.0, 3.0)
    bilateral: Annotated[tuple[float, float, float], Limits(0.001)] = (50.0, 5.0, 10.0)
