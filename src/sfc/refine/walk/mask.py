"""Pseudo masks: class maps walked over the image on the grid of its edges, the strongest at each pixel (IRN)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfc.refine.walk.walk import Array, random_walk


def walk_mask(
    keys: np.ndarray,
    cam: np.ndarray,
    edge: np.ndarray | Tensor,
    image_size: tuple[int, int],
    *,
    background: float = 0.25,
    power: float = 1.3,
    radius: int = 5,
    beta: float = 10,
    steps: int = 256,
    tolerance: float = 1e-4,
    second_walk: bool = False,
    stride: int = 4,
) -> np.ndarray:
    """Label of every pixel: the class whose walked map is the largest, background where none exceeds `background`.

    Args:
        keys: int [M]: 0 for background, then the mask values of the image's classes, ascending, at most 254.
        cam: float [M, H', W'] in [0, 1], background first; at any resolution.
        edge: float [h, w] in [0, 1], h = ceil(H / stride), w = ceil(W / stride); a tensor is walked on its device.
        image_size: H and W of the image.
        background: score of the background; the largest foreground score of an image is 1.
        power: of the maps before they are walked, see `walk_scores`.
        radius: see `random_walk`.
        beta: see `random_walk`.
        steps: see `random_walk`.
        tolerance: see `random_walk`.
        second_walk: whether to add the walk of all maps, see `walk_scores`.
        stride: pixels of the image in a cell of the grid, along each axis.

    Returns:
        uint8 [H, W] of values in `keys`; ties go to the first of them.

    Raises:
        ValueError: keys that do not fit the maps, sizes that differ, values out of their range.
    """
    keys = np.asarray(keys)
    sound = keys.ndim == 1 and len(keys) == len(cam) and keys[:1].tolist() == [0]
    if not sound or (np.diff(keys) <= 0).any() or keys[-1] > 254:
        raise ValueError(f"keys must be 0, then ascending mask values up to 254, one for each map, not {keys.tolist()}")
    edges = edge if isinstance(edge, Tensor) else torch.from_numpy(np.array(edge, dtype=np.float32, order="C"))
    scores = walk_scores(
        cam,
        edges,
        image_size,
        background=background,
        power=power,
        radius=radius,
        beta=beta,
        steps=steps,
        tolerance=tolerance,
        second_walk=second_walk,
        stride=stride,
    )
    return keys.astype(np.uint8)[scores.argmax(dim=0).to(torch.uint8).cpu().numpy()]


def walk_scores(
    cam: np.ndarray,
    edge: Array,
    image_size: tuple[int, int],
    *,
    background: float = 0.25,
    power: float = 1.3,
    radius: int = 5,
    beta: float = 10,
    steps: int = 256,
    tolerance: float = 1e-4,
    second_walk: bool = False,
    stride: int = 4,
) -> Array:
    """Scores of background and classes at every pixel, after one walk or two.

    The maps, resized to the grid of the edges and raised to `power`, are walked; then enlarged by `stride`, cropped
    to the image and divided by their one largest value. The canonical walk (IRN) takes the foreground and sets the
    background to a constant. The second walk (released code of SFC) takes all maps, background included, to the
    power once more, and is added.

    Args:
        cam: float [M, H', W'] in [0, 1], background first; at any resolution.
        edge: float [h, w] in [0, 1], h = ceil(H / stride), w = ceil(W / stride); a tensor is walked on its device.
        image_size: H and W of the image.
        background: score of the background in the canonical walk, at least 0.
        power: of the maps before they are walked; above 0.
        radius: see `random_walk`.
        beta: see `random_walk`.
        steps: see `random_walk`.
        tolerance: see `random_walk`.
        second_walk: whether to add the walk of all maps.
        stride: pixels of the image in a cell of the grid, along each axis.

    Returns:
        float32 [M, H, W], an array or a tensor as `edge` is. Maps that are zero wherever the edges are open stay zero.

    Raises:
        ValueError: sizes that differ, values out of their range.
    """
    height, width = image_size
    if np.ndim(cam) != 3 or len(cam) == 0:
        raise ValueError(f"cam must be [M, H', W'] with the background first, not {list(np.shape(cam))}")
    if stride < 1 or height < 1 or width < 1 or tuple(edge.shape) != (-(-height // stride), -(-width // stride)):
        raise ValueError(
            f"an edge map of {list(edge.shape)} does not belong to an image of {[height, width]} at stride {stride}"
        )
    if not power > 0 or not background >= 0:
        raise ValueError(f"power must be above 0 and background at least 0, not {power} and {background}")
    edges = edge.float() if isinstance(edge, Tensor) else torch.from_numpy(np.array(edge, dtype=np.float32, order="C"))
    maps = torch.from_numpy(np.array(cam, dtype=np.float32, order="C"))[None].to(edges.device)
    small = F.interpolate(maps, size=edges.shape, mode="bilinear", align_corners=False)[0] ** power

    def walked(start: Tensor) -> Tensor:
        return _enlarge(random_walk(start, edges, radius, beta, steps, tolerance), stride, height, width)

    scores = torch.cat([small.new_full((1, height, width), background), walked(small[1:])])
    if second_walk:
        scores += walked(small**power)
    return scores if isinstance(edge, Tensor) else scores.numpy()


def _enlarge(maps: Tensor, stride: int, height: int, width: int) -> Tensor:
    """Bilinear, cropped to the image, divided by the largest value of all maps; [K, h, w] to [K, height, width]."""
    if len(maps) == 0:
        return maps.new_zeros(0, height, width)
    enlarged = F.interpolate(maps[None], scale_factor=stride, mode="bilinear", align_corners=False)[0]
    enlarged = enlarged[:, :height, :width]
    peak = enlarged.max()
    return enlarged / torch.where(peak > 0, peak, 1)
