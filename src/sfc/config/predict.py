"""Settings of prediction: masks of images by a trained segmenter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sfc.config.refine import CRFConfig
from sfc.errors import ConfigError

Way = Literal["single", "single+crf", "multi", "multi+crf"]


@dataclass(frozen=True)
class PredictConfig:
    """Masks by a trained segmenter, of validation images and of new photographs. Defaults: DeepLab-v2 as published.

    Args:
        scales: sizes at which the network sees the image, as factors.
        mirror: average with the mirror image's answer. The field's other protocol is scales 0.5, 0.75, 1, 1.25, 1.5,
            with mirror, by `mean`.
        pooling: how scales are joined: `maximum` of the logits, as in training, or `mean` of the probabilities.
        crf: dense CRF on the probabilities.
        ways: how validation images are predicted and scored, a row each: `single` is the image alone, as it is;
            `multi` has the scales, mirror and pooling above; `+crf` puts the dense CRF behind it.
        tile: images that are higher or wider are predicted in tiles of at most this side.
        overlap: pixels that neighbouring tiles share at least, and over which one fades into the other.
    """

    scales: tuple[float, ...] = (1.0, 0.75, 0.5)
    mirror: bool = False
    pooling: Literal["maximum", "mean"] = "maximum"
    crf: CRFConfig = field(default_factory=lambda: CRFConfig(gaussian=(1.0, 3.0), bilateral=(67.0, 3.0, 4.0)))
    ways: tuple[Way, ...] = ("single", "single+crf", "multi", "multi+crf")
    tile: int = 1024
    overlap: int = 128

    def require_tiles(self) -> None:
        """Refuses tiles that would be overlap for the most part. Raises ConfigError."""
        if 2 * self.overlap >= self.tile:
            raise ConfigError(f"predict.overlap ({self.overlap}) must be less than half of predict.tile ({self.tile})")

    def in_words(self) -> str:
        """What the ways of the scores mean."""
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        mirrored = ", each with its mirror" if self.mirror else ""
        kernels = (self.crf.gaussian, self.crf.bilateral)
        gaussian, bilateral = (" ".join(f"{value:g}" for value in values) for values in kernels)
        return (
            f"single: the image as it is; multi: scales {scales}{mirrored}, {self.pooling} over them; "
            f"crf: {self.crf.iterations} updates, Gaussian {gaussian}, bilateral {bilateral}"
        )
