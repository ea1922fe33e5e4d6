"""Compact CAM store: one small file an image, with a bound on the error.

CAMs are sums of bilinear enlargements of coarse grids, so nearly all of their energy lies in few low frequencies.
Each kind (weight, prototype) is therefore kept as a transform code: mean of every map aside, orthonormal cosine
transform (DCT-II) truncated to low frequencies, rotation of the maps into their principal components (maps of one
image resemble each other), one quantiser step for all coefficients, LZMA. The transforms keep distances, so the error
at image size is known from the coefficients, and the coarsest step that respects the bound is chosen for each image.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import struct
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from sfc.data.records import artifact_path
from sfc.errors import DataError
from sfc.run.files import atomic_write

Array = NDArray[Any]
Value = TypeVar("Value")

SUFFIX = ".cam"
ERROR = 0.009
"""Bound on ‖stored − original‖ / ‖original‖, for each kind of CAM of each image."""
FINE_ERROR, FINE_BYTES = 0.003, 40_000
"""The tighter bound that holds wherever it costs no more than this: for all but detailed maps of many classes."""

_MAGIC = b"\xfd7zXZ"
# Quantised coefficients repeat little: LZMA serves as an adaptive entropy coder. Contexts made of the previous byte
# would dilute its statistics, a shallow search for matches loses nothing, and a small dictionary saves the 700 MB that
# its presets reserve.
_FILTERS = [
    {
        "id": lzma.FILTER_LZMA2,
        "dict_size": 1 << 20,
        "lc": 0,
        "lp": 0,
        "pb": 0,
        "mode": lzma.MODE_NORMAL,
        "mf": lzma.MF_HC3,
        "nice_len": 273,
        "depth": 1,
    }
]
# What the readers raise on damaged bytes; zipfile takes flipped flags for encryption (RuntimeError).
_DAMAGE = (lzma.LZMAError, zipfile.BadZipFile, ValueError, LookupError, TypeError, EOFError, RuntimeError, struct.error)
_ROUND_UP = 0.4
"""Fraction of a step from which a coefficient is rounded up; below 0.5, since zeros cost fewer bits than they lose."""


def cam_path(folder: Path, image_id: str) -> Path:
    """The file of one image; see `sfc.data.records.artifact_path`."""
    return artifact_path(folder, image_id, SUFFIX)


def save_cams(
    path: Path,
    keys: NDArray[np.int64],
    weight_cam: NDArray[np.float32],
    prototype_cam: NDArray[np.float32],
    *,
    lossless: bool = False,
    error: float | None = None,
) -> None:
    """Writes the CAMs of one image, atomically.

    Args:
        path: see `cam_path`.
        keys: int64 [M]: 0 for background, then 1 + class index of the present classes, ascending.
        weight_cam: float32 [M, H, W] at image size, of any range.
        prototype_cam: float32 [M, H, W].
        lossless: keep every bit instead (as NumPy's npz): for comparisons, 10 to 1000 times as large.
        error: bound on ‖stored − original‖ / ‖original‖ for each of the two, from 0.001 to 1; None: 0.003, or 0.009
            where that would take more than 40 KB.

    Raises:
        DataError: a value is not finite, which means that the training diverged.
        SFCError: the file cannot be written.
        ValueError: shapes or keys do not fit together.
    """
    keys = np.asarray(keys, dtype=np.int64)
    cams = [np.ascontiguousarray(cam, dtype=np.float32) for cam in (weight_cam, prototype_cam)]
    if not _sound_keys(keys) or any(cam.ndim != 3 or cam.shape != (len(keys), *cams[0].shape[1:]) for cam in cams):
        raise ValueError(f"keys {keys.tolist()} do not fit CAMs of {cams[0].shape} and {cams[1].shape}")
    if error is not None and not 0.001 <= error < 1:
        raise ValueError(f"an error bound of {error} is not between 0.001 and 1")
    if not all(np.isfinite(cam).all() for cam in cams):
        raise DataError(path, "these CAMs are not finite numbers: the training diverged")
    if lossless:
        with atomic_write(path) as file:
            np.savez(file, keys=keys, weight_cam=cams[0], prototype_cam=cams[1])
        return
    content = _compact(keys, cams, ERROR if error is None else error)
    if error is None and len(content) <= FINE_BYTES // 2:  # the fine bound takes at least twice as much
        fine = _compact(keys, cams, FINE_ERROR)
        content = fine if len(fine) <= FINE_BYTES else content
    with atomic_write(path) as file:
        file.write(content)


def load_cams(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Reads what `save_cams` wrote.

    Returns:
        keys: int64 [M].
        weight_cam: float32 [M, H, W] at image size; no map exceeds the range that it had.
        prototype_cam: float32 [M, H, W].

    Raises:
        DataError: the file is missing, truncated, damaged, or something else.
    """
    keys, cams = _read(path, lambda data: _read_compact(data) if data.startswith(_MAGIC) else _read_lossless(data))
    return keys, cams[0], cams[1]


def stored_keys(path: Path) -> NDArray[np.int64]:
    """The keys alone of what `save_cams` wrote; no map is decoded. Raises DataError as `load_cams`."""
    return _read(path, _compact_keys)


def _read(path: Path, parse: Callable[[bytes], Value]) -> Value:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"the CAMs of this image cannot be read ({error.strerror})") from error
    try:
        return parse(data)
    except _DAMAGE as error:
        raise DataError(path, "the CAM file is truncated or damaged; delete it and localize again") from error


def _compact_keys(data: bytes) -> Array:
    if not data.startswith(_MAGIC):
        return _read_lossless(data)[0]
    with lzma.open(io.BytesIO(data), format=lzma.FORMAT_XZ) as file:
        return np.array(json.loads(file.readline())["keys"], dtype=np.int64)


def _sound_keys(keys: Array) -> bool:
    return keys.ndim == 1 and len(keys) > 0 and keys[0] == 0 and bool((np.diff(keys) > 0).all())


def _read_lossless(data: bytes) -> tuple[Array, list[Array]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        keys, cams = arrays["keys"], [arrays["weight_cam"], arrays["prototype_cam"]]
    if not _sound_keys(keys) or any(cam.dtype != np.float32 or cam.shape[:1] != keys.shape for cam in cams):
        raise ValueError("not CAMs")
    return keys, cams


def _read_compact(data: bytes) -> tuple[Array, list[Array]]:
    head, _, payload = lzma.decompress(data, format=lzma.FORMAT_XZ).partition(b"\n")
    header = json.loads(head)
    keys, size = np.array(header["keys"], dtype=np.int64), tuple(header["size"])
    if not _sound_keys(keys) or len(header["cams"]) != 2:
        raise ValueError("not CAMs")
    cams, start = [], 0
    for description in header["cams"]:
        length = _payload_length(description, len(keys))
        cams.append(_decode(description, payload[start : start + length], len(keys), size))
        start += length
    return keys, cams


def _compact(keys: Array, cams: list[Array], error: float) -> bytes:
    """A whole file: one line of JSON, then the payloads, in an XZ container with its checksum."""
    header: dict[str, Any] = {"keys": keys.tolist(), "size": cams[0].shape[1:], "cams": []}
    payload = b""
    for cam in cams:
        description, data = _encode(cam, error)
        header["cams"].append(description)
        payload += data
    body = json.dumps(header, separators=(",", ":")).encode() + b"\n" + payload
    return lzma.compress(body, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=_FILTERS)


def _encode(cam: Array, error: float) -> tuple[dict[str, Any], bytes]:
    """Header entry and payload of one kind of CAM, float32 [M, H, W]."""
    mean = cam.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
    centred = cam - mean[:, None, None]
    # A thousandth of the bound is left to the rounding of float32.
    allowed = (0.999 * error * float(np.linalg.norm(cam.astype(np.float64)))) ** 2
    coefficients, lost = _low_frequencies(centred, allowed)
    maps, height, width = coefficients.shape
    flat = coefficients.reshape(maps, -1).astype(np.float64)
    _, vectors = np.linalg.eigh(flat @ flat.T)
    rotation = np.ascontiguousarray(vectors[:, ::-1], dtype=np.float32)
    flat = rotation.T.astype(np.float64) @ flat
    step = _coarsest_step(flat, allowed - lost)
    quantised = _quantise(flat, step)
    order = _by_frequency(height, width, *cam.shape[1:])
    ordered = quantised[:, order]
    used = np.flatnonzero(ordered.any(axis=0))
    count = int(used[-1]) + 1 if len(used) else 0
    values = ordered[:, :count]
    folded = np.where(values >= 0, 2 * values, -2 * values - 1).astype("<u4")
    planes = np.ascontiguousarray(folded).view(np.uint8).reshape(-1, 4).T  # the upper bytes are nearly all zero
    ranges = np.stack([mean, cam.min(axis=(1, 2)), cam.max(axis=(1, 2))]).astype("<f4")
    payload = ranges.tobytes() + rotation.astype("<f4").tobytes() + planes.tobytes()
    return {"grid": [height, width], "count": count, "step": step}, payload


def _decode(description: dict[str, Any], data: bytes, maps: int, size: tuple[int, int]) -> Array:
    """Inverse of `_encode`: float32 [M, H, W]."""
    (height, width), count = description["grid"], description["count"]
    head = np.frombuffer(data, "<f4", count=maps * (3 + maps))
    mean, low, high = head[: 3 * maps].reshape(3, maps, 1, 1)
    planes = np.frombuffer(data, np.uint8, offset=head.nbytes).reshape(4, -1)
    folded = np.ascontiguousarray(planes.T).view("<u4").reshape(maps, count).astype(np.int64)
    values = np.where(folded % 2 == 0, folded // 2, -(folded // 2) - 1) * description["step"]
    flat = np.zeros((maps, height * width), dtype=np.float32)
    order = _by_frequency(height, width, *size)
    flat[:, order[:count]] = head[3 * maps :].reshape(maps, maps) @ values.astype(np.float32)
    rows, columns = _extent(order[:count], width)
    coefficients = flat.reshape(maps, height, width)[:, :rows, :columns]
    # Missing frequencies are zero. Rows first, while there are few of them.
    across: Array = fft.idct(coefficients, n=size[1], axis=2, norm="ortho")
    cam: Array = fft.idct(across, n=size[0], axis=1, norm="ortho")
    cam += mean
    return np.clip(cam, low, high, out=cam)


def _payload_length(description: dict[str, Any], maps: int) -> int:
    return 4 * maps * (3 + maps + int(description["count"]))


def _low_frequencies(maps: Array, allowed: float) -> tuple[Array, float]:
    """Cosine coefficients of the lowest quarter of frequencies each way; of more where too much would be lost.

    Returns:
        coefficients: float32 [M, h, w].
        lost: squared error of leaving out the rest.
    """
    height, width = maps.shape[1:]
    total = float(np.square(maps, dtype=np.float64).sum())
    across = fft.dct(maps, axis=2, norm="ortho")
    for part in (4, 2, 1):
        rows, columns = math.ceil(height / part), math.ceil(width / part)
        coefficients: Array = fft.dct(across[:, :, :columns], axis=1, norm="ortho")[:, :rows]
        lost = max(0.0, total - float(np.square(coefficients, dtype=np.float64).sum()))
        if lost <= allowed / 4:
            break
    return coefficients, lost


def _coarsest_step(coefficients: Array, allowed: float) -> float:
    """Quantiser step, as large as a squared error of `allowed` permits (to 1 %)."""
    magnitude = np.abs(coefficients).ravel()
    # Rounding errs by at most (1 − _ROUND_UP) of a step, so this one is surely fine enough.
    fine = math.sqrt(allowed / magnitude.size) / (1 - _ROUND_UP)
    if fine == 0:  # all maps are zero
        return 1.0
    small = magnitude < fine * (1 - _ROUND_UP)  # zero at this and every larger step
    spent = float(np.square(magnitude[small]).sum())
    magnitude = magnitude[~small]
    coarse = fine * 1024
    while coarse > fine * 1.01:
        step = math.sqrt(fine * coarse)
        wrong = spent + float(np.square(magnitude - step * np.floor(magnitude / step + _ROUND_UP)).sum())
        fine, coarse = (step, coarse) if wrong <= allowed else (fine, step)
    return fine


def _quantise(coefficients: Array, step: float) -> Array:
    return (np.sign(coefficients) * np.floor(np.abs(coefficients) / step + _ROUND_UP)).astype(np.int64)


@lru_cache(maxsize=8)  # megabytes each for photographs of a phone
def _by_frequency(height: int, width: int, image_height: int, image_width: int) -> Array:
    """Flat indices of a [height, width] coefficient grid, in ascending order of spatial frequency."""
    rows, columns = np.arange(height)[:, None] / image_height, np.arange(width) / image_width
    return np.argsort(rows**2 + columns**2, axis=None, kind="stable")


def _extent(indices: Array, width: int) -> tuple[int, int]:
    """Rows and columns that hold all of some flat indices; at least one of each."""
    if not len(indices):
        return 1, 1
    return int((indices // width).max()) + 1, int((indices % width).max()) + 1
