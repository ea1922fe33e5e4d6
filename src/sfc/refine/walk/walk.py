"""Random walk of class maps over an image, held back by edges (IRN, CVPR 2019, section 4.3)."""

from __future__ import annotations

import math
from numbers import Integral
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfc.refine.walk.paths import half_plane_offsets, path_cells

Array = TypeVar("Array", np.ndarray, Tensor)


def random_walk(
    cam: Array, edge: Array, radius: int = 5, beta: float = 10, steps: int = 256, tolerance: float = 1e-4
) -> Array:
    """Spreads maps over cells that no edge parts: CAM · (1 − edge) · T^steps.

    The affinity of two cells nearer than `radius` is 1 − the largest edge on the straight path between them, ends
    included; of a cell with itself 1; to the power `beta`, columns divided by their sums: T. Only products with T are
    formed, through a stencil; memory is linear in h · w.

    T is similar to a symmetric matrix with eigenvalues in [−1, 1], so that a polynomial which differs from x^steps by
    at most ε there differs by at most ε in the norm of the degrees, ‖v‖² = Σ degree · v², degree being a column's
    sum. x^n = Σ c_k T_k(x), where c_k is the chance that n tosses of a coin differ by k, heads or tails; |T_k| ≤ 1,
    so leaving out the terms above d costs at most the chance of more than d: below `tolerance` from d ≈
    √(2 · steps · ln(2 / tolerance)) on, 62 products instead of 256. Rounding (float32) comes on top.

    Args:
        cam: [K, h, w], at least 0; one map a class.
        edge: [h, w] in [0, 1]; an array if `cam` is one, a tensor on the same device if it is that.
        radius: pairs are strictly nearer, in cells; at 1 nothing moves.
        beta: power of the affinity, at least 0.
        steps: how many times T is applied.
        tolerance: bound on ‖error‖ / ‖CAM · (1 − edge)‖ of each map, in the norm of the degrees; 0: every step is made.

    Returns:
        float32 [K, h, w], an array or a tensor on the device of `cam`, without gradient; between 0 and the maximum
        of each map of CAM · (1 − edge).

    Raises:
        TypeError: an array and a tensor, or neither.
        ValueError: sizes that differ, a value or an option out of its range.
    """
    _check_options(radius, beta, steps, tolerance)
    if isinstance(cam, np.ndarray) and isinstance(edge, np.ndarray):
        maps, edges = (torch.from_numpy(np.array(value, dtype=np.float32, order="C")) for value in (cam, edge))
        return _walk(maps, edges, radius, beta, steps, tolerance).numpy()
    if isinstance(cam, Tensor) and isinstance(edge, Tensor):
        if cam.device != edge.device:
            raise ValueError(f"cam is on {cam.device} but edge on {edge.device}")
        return _walk(cam.detach().float(), edge.detach().float(), radius, beta, steps, tolerance)
    raise TypeError(
        f"cam and edge must both be arrays or both be tensors, not {type(cam).__name__} and {type(edge).__name__}"
    )


def _check_options(radius: int, beta: float, steps: int, tolerance: float) -> None:
    for name, value, least in (("radius", radius, 1), ("steps", steps, 0)):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value}")
    for name, number in (("beta", beta), ("tolerance", tolerance)):
        if not 0 <= number < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 0, not {number}")


def _check_maps(cam: Tensor, edge: Tensor) -> None:
    if cam.ndim != 3 or edge.ndim != 2 or cam.shape[1:] != edge.shape or edge.numel() == 0:
        raise ValueError(f"cam must be [K, h, w] and edge [h, w], not {list(cam.shape)} and {list(edge.shape)}")
    if not bool(((cam >= 0) & (cam < math.inf)).all()):
        raise ValueError("cam must be finite and not negative")
    if not bool(((edge >= 0) & (edge <= 1)).all()):
        raise ValueError("edge must lie in [0, 1]")


def _walk(cam: Tensor, edge: Tensor, radius: int, beta: float, steps: int, tolerance: float) -> Tensor:
    _check_maps(cam, edge)
    start = cam * (1 - edge)
    if len(start) == 0:
        return start
    peak = start.amax(dim=(1, 2), keepdim=True)
    start /= torch.where(peak > 0, peak, 1)
    # The power keeps the order, so that it is taken once a cell, not once a pair.
    passable = (1 - edge) ** beta
    first, recurrence = walk_polynomial(int(steps), tolerance)
    if start.device.type == "cpu":
        from sfc.refine.walk.kernels import walk_maps

        walked = torch.from_numpy(walk_maps(start.numpy(), passable.numpy(), int(radius), first, recurrence))
    else:
        walked = _walk_by_torch(start, passable, int(radius), first, recurrence)
    # What the walk gives lies between its smallest and largest input; what a polynomial gives nearly does.
    return walked.clamp_(0, 1).mul_(peak)


def walk_polynomial(steps: int, tolerance: float) -> tuple[float, np.ndarray]:
    """A polynomial that differs from x^steps by at most `tolerance` in [−1, 1], as a three-term recurrence.

    It is first + Σ coefficient_k · p_k(x), where p_0 = 1 and p_k = gain_k · x · p_(k-1) − back_k · p_(k-2):
    Chebyshev polynomials up to the smallest degree that will do, or powers if that is no shorter.

    Returns:
        `first`, and float32 [products, 3] of gain, back and coefficient.
    """
    if tolerance > 0:
        # Chances that `steps` tosses of a coin differ by k; further than 40 standard deviations they are 0.
        k = np.arange(steps % 2, min(steps, math.ceil(40 * math.sqrt(steps))) + 1, 2)
        chance = np.cumprod(np.concatenate([[1], (steps - k[:-1]) / (steps + k[:-1] + 2)]))
        if k[0] == 0:
            chance[0] /= 2  # the others count k heads more and k tails more
        chance /= chance.sum()
        beyond = np.append(chance[::-1].cumsum()[-2::-1], 0)
        last = int(np.argmax(beyond <= tolerance))
        degree = int(k[last])
        if degree < steps:
            terms = np.tile(np.array([2, 1, 0], dtype=np.float32), (degree, 1))
            terms[:1] = [1, 0, 0]
            used = k[: last + 1]
            terms[used[used > 0] - 1, 2] = chance[: last + 1][used > 0]
            return float(chance[0]) if k[0] == 0 else 0.0, terms
    terms = np.tile(np.array([1, 0, 0], dtype=np.float32), (steps, 1))
    terms[-1:, 2] = 1
    return float(steps == 0), terms


def _walk_by_torch(start: Tensor, passable: Tensor, radius: int, first: float, recurrence: np.ndarray) -> Tensor:
    """What `walk_kernels.walk_maps` computes, by few and large operations, as a GPU likes them."""
    reach = radius - 1
    side = 2 * reach + 1
    weight = _window_weights(passable, radius)
    before, now, result = torch.zeros_like(start), start, first * start
    for gain, back, coefficient in recurrence.tolist():
        windows = F.pad(now, (reach,) * 4).unfold(1, side, 1).unfold(2, side, 1)
        moved = torch.stack([(weight * window).sum(dim=(2, 3)) for window in windows])
        before, now = now, gain * moved - back * before
        if coefficient:
            result += coefficient * now
    return result


def _window_weights(passable: Tensor, radius: int) -> Tensor:
    """How much every cell receives from its surroundings: [h, w, 2 · radius − 1, 2 · radius − 1], of sum 1."""
    (height, width), reach = passable.shape, radius - 1
    padded = F.pad(passable, (reach,) * 4)
    weight = passable.new_zeros(height, width, 2 * reach + 1, 2 * reach + 1)
    weight[:, :, reach, reach] = 1
    for dy, dx in half_plane_offsets(radius).tolist():
        for sign in (1, -1):
            affinity = weight[:, :, reach + sign * dy, reach + sign * dx].fill_(1)
            for y, x in (reach + sign * path_cells(dy, dx)).tolist():
                torch.minimum(affinity, padded[y : y + height, x : x + width], out=affinity)
    return weight / weight.sum(dim=(2, 3), keepdim=True)
