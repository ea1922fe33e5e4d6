"""Class probabilities of one image: several sizes, its mirror, and a dense CRF behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sfc.config import CRFConfig
from sfc.data.pixels import normalise
from sfc.refine.crf import dense_crf
from sfc.segment.loss import pyramid
from sfc.segment.networks import Segmenter

Pooling = Literal["maximum", "mean"]


@torch.inference_mode()
def image_probabilities(
    net: Segmenter,
    image: NDArray[np.uint8],
    scales: Sequence[float] = (1.0,),
    *,
    mirror: bool = False,
    pooling: Pooling = "maximum",
    precision: str = "fp32",
) -> NDArray[np.float32]:
    """Class probabilities of every pixel.

    Args:
        net: in evaluation mode.
        image: uint8 [H, W, 3].
        scales: sizes that the network sees, resized as in training; the first one's grid is that of the maximum.
        mirror: mean with the probabilities of the mirror image.
        pooling: `maximum` over the logits of the scales, or `mean` over their probabilities.
        precision: `fp32` or `bf16` (autocast).

    Returns:
        float32 [K, H, W], sums to 1 over K; 0 is the background.

    Raises:
        ValueError: the image is not uint8 [H, W, 3].
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    device = next(net.parameters()).device
    pixels = normalise(torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None])
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        probabilities = _pooled(net, pixels, scales, pooling)
        if mirror:
            probabilities += _pooled(net, pixels.flip(3), scales, pooling).flip(2)
            probabilities /= 2
    return probabilities.cpu().numpy()


def _pooled(net: Segmenter, pixels: Tensor, scales: Sequence[float], pooling: Pooling) -> Tensor:
    """float32 [K, H, W] of one normalised image [1, 3, H, W]."""
    size = (pixels.shape[2], pixels.shape[3])
    logits = pyramid(net, pixels, scales)
    joined = logits[-1:] if pooling == "maximum" else logits[: len(scales)]
    total: Tensor | None = None
    for each in joined:
        probabilities = F.interpolate(each, size=size, mode="bilinear", align_corners=False)[0].softmax(dim=0)
        total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total / len(joined)


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
        iterations=config.iterations,
    )
    return marginals


LEAST = 0.01
"""Labels whose probability is below this everywhere take no part in the CRF."""
