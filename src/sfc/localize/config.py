"""Settings of the second stage: CAMs of every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sfc.settings.limits import Scales


@dataclass(frozen=True)
class LocalizeConfig:
    """Stage 2: CAMs of every image.

    Args:
        scales: of the image; each is run with its mirror.
        labels: which classes an image's CAMs are kept for: `given` by the data set, or `predicted` by the classifier.
    """

    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    labels: Literal["given", "predicted"] = "given"
