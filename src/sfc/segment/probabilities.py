"""Class probabilities of one image: several sizes, its mirror, and a dense CRF behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sfc.refine.crf.config import CRFConfig
from sfc.refine.crf.dense import dense_crf
from sfc.segment.loss import at_scale, with_maximum
from sfc.segment.segmenter import Segmenter

Pooling = Literal["maximum", "mean"]
LEAST = 0.01
"""Labels whose probability is below this everywhere take no part in the CRF."""


def adjusted(logits: Tensor, net: Segmenter, logit_adjustment: float) -> Tensor:
    """Logits [N, K, h, w] of a network less what they owe to how frequent a class is."""
    return logits - logit_adjustment * net.log_share[:, None, None] if logit_adjustment else logits


class ImageLogits:
    """What a network says of one image at any size, each computed once.

    Args:
        net: in evaluation mode.
        image: uint8 [H, W, 3].
        precision: `fp32` or `bf16` (autocast).
        logit_adjustment: τ of logit - τ `log_share` (Menon et al., ICLR 2021, eq. 9; the prior there is of labels, here
            the share of images that show a class, which tags tell).

    Raises:
        ValueError: the image is not uint8 [H, W, 3].
    """

    def __init__(
        self, net: Segmenter, image: NDArray[np.uint8], precision: str = "fp32", logit_adjustment: float = 0.0
    ) -> None:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        self._net, self._precision, self._logit_adjustment = net, precision, logit_adjustment
        self._device = next(net.parameters()).device
        pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).to(self._device)
        self._pixels = net.pixels.normalise(pixels.permute(2, 0, 1)[None])
        self._found: dict[tuple[float, bool], Tensor] = {}

    @torch.inference_mode()
    def probabilities(
        self, scales: Sequence[float] = (1.0,), mirror: bool = False, pooling: Pooling = "maximum"
    ) -> NDArray[np.float32]:
        """Class probabilities of every pixel.

        Args:
            scales: sizes that the network sees, resized as in training; the first one's grid is that of the maximum.
            mirror: mean with the probabilities of the mirror image.
            pooling: `maximum` over the logits of the scales, or `mean` over their probabilities.

        Returns:
            float32 [K, H, W], sums to 1 over K; 0 is the background.
        """
        total = self._pooled(scales, False, pooling)
        if mirror:
            total += self._pooled(scales, True, pooling).flip(2)
            total /= 2
        return total.cpu().numpy()

    def _pooled(self, scales: Sequence[float], mirrored: bool, pooling: Pooling) -> Tensor:
        logits = [self._logits(scale, mirrored) for scale in scales]
        joined = with_maximum(logits)[-1:] if pooling == "maximum" else logits
        total: Tensor | None = None
        for each in joined:
            enlarged = F.interpolate(each, size=self._pixels.shape[2:], mode="bilinear", align_corners=False)
            probabilities = enlarged[0].softmax(dim=0)
            total = probabilities if total is None else total.add_(probabilities)
        assert total is not None
        return total / len(joined)

    def _logits(self, scale: float, mirrored: bool) -> Tensor:
        """float32 [1, K, h, w]."""
        if (scale, mirrored) not in self._found:
            pixels = self._pixels.flip(3) if mirrored else self._pixels
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"):
                logits = self._net(at_scale(pixels, scale)).float()
            self._found[scale, mirrored] = adjusted(logits, self._net, self._logit_adjustment)
        return self._found[scale, mirrored]


def only(probabilities: NDArray[np.float32], shown: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Probabilities where it is known which classes there are: Bayes' rule with a prior of 0 on the others.

    Args:
        probabilities: float32 [1 + C, H, W], background first.
        shown: bool [C].

    Returns:
        float32 [1 + C, H, W], sums to 1; background where all of the probability was on other classes.
    """
    kept = probabilities * np.concatenate([[True], shown])[:, None, None]
    total = kept.sum(axis=0)
    kept[0][total == 0] = 1
    return (kept / kept.sum(axis=0)).astype(np.float32)


def smoothed(image: NDArray[np.uint8], probabilities: NDArray[np.float32], config: CRFConfig) -> NDArray[np.float32]:
    """Marginals of a dense CRF whose unary are the probabilities.

    Labels that no pixel finds likely cost time and memory without an effect that anyone could see, so those whose
    probability stays below 1 % everywhere are left out, and get 0.

    Args:
        image: uint8 [H, W, 3].
        probabilities: float32 [K, H, W].
        config: of the CRF.

    Returns:
        float32 [K, H, W], sums to 1 over K.
    """
    kept = np.flatnonzero(probabilities.reshape(len(probabilities), -1).max(axis=1) >= LEAST)
    marginals = np.zeros_like(probabilities)
    marginals[kept] = dense_crf(
        image,
        probabilities=probabilities[kept],
        gaussian=config.gaussian,
        bilateral=config.bilateral,
    )
    return marginals
