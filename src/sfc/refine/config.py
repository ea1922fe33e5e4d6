"""Settings of the third stage, with those of every method of refinement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfc.refine.methods import REFINERS
from sfc.refine.refiner import RefineConfig
from sfc.settings.parts import with_parts

if TYPE_CHECKING:
    RefineSection = RefineConfig
else:
    RefineSection = with_parts(RefineConfig, REFINERS, choice="method")
