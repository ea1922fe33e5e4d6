"""Labels from CAMs and a dense CRF, with the pixels whose class is not to be trusted marked (IRN, section 3.3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfc.data.records import IGNORE
from sfc.refine.crf.config import CRFConfig
from sfc.refine.crf.dense import DenseCRF

GT_PROB = 0.7
"""Probability that a given label is right (pydensecrf's default, and all published code since)."""
UNCERTAIN_BACKGROUND = 0.5
"""Factor on the background of a second, more daring labelling (released code)."""


class LabelCRF:
    """Label maps of one image through a dense CRF.

    Args:
        image: uint8 [H, W, 3].
        num_labels: labels that compete, whether they occur or not.
        config: of the CRF.
    """

    def __init__(self, image: NDArray[np.uint8], num_labels: int, config: CRFConfig) -> None:
        self._crf = DenseCRF(image, gaussian=config.gaussian, bilateral=config.bilateral)
        self._num_labels = num_labels

    def __call__(self, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """The likeliest label of every pixel; integers [H, W] in [0, num_labels), in and out."""
        return self._crf.marginals(labels=labels, num_labels=self._num_labels, gt_prob=GT_PROB).argmax(axis=0)


def relation_labels(
    image: NDArray[np.uint8],
    keys: NDArray[np.int64],
    cam: NDArray[np.float32],
    crf: CRFConfig,
) -> NDArray[np.uint8]:
    """What the relation network learns from.

    A class where the CRF of the CAM's argmax says so; background where the CRF says background even when the
    background of the CAM is made weaker first; uncertain between the two (METHOD: released code).

    Args:
        image: uint8 [H, W, 3].
        keys: int64 [M]: 0 for background, then 1 + class index of the present classes, ascending.
        cam: float32 [M, H, W], fused, background first.
        crf: dense CRF.

    Returns:
        uint8 [H, W] of values in `keys`, and 255 where uncertain.
    """
    strict = cam.argmax(axis=0)
    weaker = np.concatenate([cam[:1] * np.float32(UNCERTAIN_BACKGROUND), cam[1:]])
    daring = weaker.argmax(axis=0)
    smooth = LabelCRF(image, len(keys), crf)
    certain = smooth(strict)
    # The same labels have the same marginals; an image without classes has them everywhere.
    possible = certain if np.array_equal(strict, daring) else smooth(daring)
    return np.where(certain > 0, keys[certain], np.where(possible > 0, IGNORE, 0)).astype(np.uint8)
