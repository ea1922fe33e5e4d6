"""Labels from CAMs and a dense CRF, with the pixels whose class is not to be trusted marked (IRN, section 3.3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfc.config import LabelCRFConfig
from sfc.data.records import IGNORE
from sfc.refine.crf.dense import DenseCRF


def fused_cam(
    weight_cam: NDArray[np.float32], prototype_cam: NDArray[np.float32], fusion_lambda: float
) -> NDArray[np.float32]:
    """W + λP, each with its own background channel; float32 [M, H, W]."""
    return weight_cam + np.float32(fusion_lambda) * prototype_cam


class LabelCRF:
    """Label maps of one image through a dense CRF.

    Args:
        image: uint8 [H, W, 3].
        num_labels: labels that compete, whether they occur or not.
        config: of the CRF.
    """

    def __init__(self, image: NDArray[np.uint8], num_labels: int, config: LabelCRFConfig) -> None:
        self._crf = DenseCRF(image, gaussian=config.gaussian, bilateral=config.bilateral)
        self._num_labels, self._config = num_labels, config

    def __call__(self, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """The likeliest label of every pixel; integers [H, W] in [0, num_labels), in and out."""
        config = self._config
        marginals = self._crf.marginals(
            labels=labels, num_labels=self._num_labels, gt_prob=config.gt_prob, iterations=config.iterations
        )
        return marginals.argmax(axis=0)


def relation_labels(
    image: NDArray[np.uint8],
    keys: NDArray[np.int64],
    cam: NDArray[np.float32],
    uncertain_background: float,
    crf: LabelCRFConfig,
) -> NDArray[np.uint8]:
    """What the relation network learns from.

    A class where the CRF of the CAM's argmax says so; background where the CRF says background even when the
    background of the CAM is made weaker first; uncertain between the two (METHOD: released code).

    Args:
        image: uint8 [H, W, 3].
        keys: int64 [M]: 0 for background, then 1 + class index of the present classes, ascending.
        cam: float32 [M, H, W], fused, background first.
        uncertain_background: factor on the background of the second labelling, in [0, 1].
        crf: dense CRF.

    Returns:
        uint8 [H, W] of values in `keys`, and 255 where uncertain.
    """
    strict = cam.argmax(axis=0)
    weaker = np.concatenate([cam[:1] * np.float32(uncertain_background), cam[1:]])
    daring = weaker.argmax(axis=0)
    smooth = LabelCRF(image, len(keys), crf)
    certain = smooth(strict)
    # The same labels have the same marginals; an image without classes has them everywhere.
    possible = certain if np.array_equal(strict, daring) else smooth(daring)
    return np.where(certain > 0, keys[certain], np.where(possible > 0, IGNORE, 0)).astype(np.uint8)
