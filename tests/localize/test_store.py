"""CAM store: what comes back, how far off, and what happens to damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfc.errors import DataError, SFCError
from sfc.localize.store import ERROR, FINE_BYTES, FINE_ERROR, _low_frequencies, cam_path, load_cams, save_cams


def enlarge(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear enlargement [M, h, w] to [M, H, W], half-pixel centres, by plain interpolation along each axis."""
    for axis, length in ((1, size[0]), (2, size[1])):
        cells = grid.shape[axis]
        position = (np.arange(length) + 0.5) * cells / length - 0.5
        grid = np.apply_along_axis(lambda row, p=position, n=cells: np.interp(p, np.arange(n), row), axis, grid)
    return grid


def smooth_cams(rng: np.random.Generator, classes: int, size: tuple[int, int], stride: int = 16) -> np.ndarray:
    """CAMs as inference builds them: enlarged from coarse grids at four scales, added, peak 1, background rule."""
    blobs = enlarge(np.maximum(rng.standard_normal((classes + 1, 4, 4)), 0), size)
    total = np.zeros((classes + 1, *size))
    for scale in (0.5, 1.0, 1.5, 2.0):
        grid = [max(1, round(scale * side / stride)) for side in size]
        rows = np.linspace(0, size[0] - 1, grid[0]).astype(int)
        columns = np.linspace(0, size[1] - 1, grid[1]).astype(int)
        noise = rng.standard_normal((classes + 1, *grid))
        total += enlarge(np.maximum(blobs[:, rows][:, :, columns] + 0.05 * noise, 0), size)
    total /= total.max(axis=(1, 2), keepdims=True) + 1e-5
    total[1:] *= 2
    total[0] += 0.4
    return total.astype(np.float32)


def relative_error(stored: np.ndarray, original: np.ndarray) -> float:
    return float(np.linalg.norm(stored - original) / max(np.linalg.norm(original), 1e-12))


def some_keys(rng: np.random.Generator, maps: int) -> np.ndarray:
    return np.concatenate([[0], np.sort(rng.choice(np.arange(1, 60), maps - 1, replace=False))]).astype(np.int64)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 40), st.integers(1, 40), st.booleans())
@settings(max_examples=60)
def test_round_trip_of_any_maps(
    tmp_path_factory: pytest.TempPathFactory, seed: int, maps: int, height: int, width: int, lossless: bool
) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("cams") / "a.cam"
    keys = some_keys(rng, maps)
    # Noise, flat maps and empty maps, of very different ranges: nothing that the transform likes.
    cams = rng.random((2, maps, height, width)).astype(np.float32) * rng.choice([0, 0.01, 1, 100], (2, maps, 1, 1))
    cams = (cams + rng.choice([0, 0.4], (2, maps, 1, 1))).astype(np.float32)
    save_cams(path, keys, *cams, lossless=lossless)
    loaded_keys, *loaded = load_cams(path)
    np.testing.assert_array_equal(loaded_keys, keys)
    assert loaded_keys.dtype == np.int64
    for stored, original in zip(loaded, cams, strict=True):
        assert stored.shape == original.shape
        assert stored.dtype == np.float32
        if lossless:
            np.testing.assert_array_equal(stored, original)
        else:
            assert relative_error(stored, original) <= ERROR
            assert (stored.min((1, 2)) >= original.min((1, 2))).all()
            assert (stored.max((1, 2)) <= original.max((1, 2))).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([0.001, 0.003, 0.02, 0.1]))
@settings(max_examples=25)
def test_error_respects_the_bound_asked_for(
    tmp_path_factory: pytest.TempPathFactory, seed: int, classes: int, bound: float
) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("cams") / "a.cam"
    cam = smooth_cams(rng, classes, (70, 93))
    save_cams(path, some_keys(rng, classes + 1), cam, cam[::-1], error=bound)
    _, weight, prototype = load_cams(path)
    assert relative_error(weight, cam) <= bound
    assert relative_error(prototype, cam[::-1]) <= bound


def test_photograph_sized_cams_are_small_and_nothing_shifts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cams = [smooth_cams(rng, 9, (820, 550)) for _ in range(2)]
    keys = np.arange(10)
    save_cams(tmp_path / "a.cam", keys, *cams)
    assert (tmp_path / "a.cam").stat().st_size <= 60 * 1024
    _, weight, prototype = load_cams(tmp_path / "a.cam")
    for stored, original in ((weight, cams[0]), (prototype, cams[1])):
        assert relative_error(stored, original) <= ERROR
        # A stored map that were moved by a fraction of a pixel would correlate with the gradient.
        for axis in (1, 2):
            gradient = np.gradient(original, axis=axis)
            shift = float(((stored - original) * gradient).sum() / (gradient**2).sum())
            assert abs(shift) < 0.02
        assert abs(float((stored - original).mean())) < 1e-3
    assert (weight.argmax(0) == cams[0].argmax(0)).mean() > 0.98


def test_small_files_are_fine_and_detailed_ones_stay_within_the_bound(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    path, keys = tmp_path / "a.cam", np.arange(5)
    small = smooth_cams(rng, 4, (96, 96))
    save_cams(path, keys, small, small)
    assert path.stat().st_size <= FINE_BYTES
    assert relative_error(load_cams(path)[1], small) <= FINE_ERROR
    noise = rng.random((5, 200, 200)).astype(np.float32)
    save_cams(path, keys, noise, noise)
    assert FINE_ERROR < relative_error(load_cams(path)[1], noise) <= ERROR


def test_map_of_zeros_stays_exactly_zero(tmp_path: Path) -> None:
    cam = smooth_cams(np.random.default_rng(1), 2, (40, 60))
    cam[2] = 0
    save_cams(tmp_path / "a.cam", np.array([0, 3, 7]), cam, np.zeros_like(cam))
    _, weight, prototype = load_cams(tmp_path / "a.cam")
    assert not weight[2].any()
    assert weight[1].any()
    assert not prototype.any()


def test_files_written_with_dense_cosine_matrices_hold_the_same_maps() -> None:
    """Written before the fast transform, with what was read back then: a quarter of the frequencies, and all."""
    recorded = Path(__file__).parent / "recorded" / "dense_transform"
    keys, *maps = load_cams(recorded.with_suffix(".cam"))
    assert keys.tolist() == [0, 3]
    with np.load(recorded.with_suffix(".npz")) as expected:
        for name, cam in zip(("weight_cam", "prototype_cam"), maps, strict=True):
            np.testing.assert_allclose(cam, expected[name], rtol=0, atol=1e-5)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_coefficients_are_those_of_the_plain_cosine_sum(height: int, width: int, seed: int) -> None:
    def cosines(length: int) -> np.ndarray:
        frequency, position = np.arange(length)[:, None], np.arange(length) + 0.5
        basis = np.cos(np.pi / length * frequency * position) * np.sqrt(2 / length)
        basis[0] /= np.sqrt(2)
        return basis

    maps = np.random.default_rng(seed).random((2, height, width)).astype(np.float32)
    coefficients, lost = _low_frequencies(maps, 0.0)
    expected = cosines(height) @ maps.astype(np.float64) @ cosines(width).T
    rows, columns = coefficients.shape[1:]
    np.testing.assert_allclose(coefficients, expected[:, :rows, :columns], rtol=0, atol=1e-5)
    assert lost == pytest.approx((expected**2).sum() - (coefficients.astype(np.float64) ** 2).sum(), abs=1e-4)


def test_ids_with_folders_spaces_and_any_letters(tmp_path: Path) -> None:
    cam = np.ones((1, 3, 4), np.float32)
    ids = ["a", "a/b", "Ünïcode/日本 語", "dots.in.name", "a.cam", "sub/a"]
    for value, name in enumerate(ids):
        save_cams(cam_path(tmp_path, name), np.array([0]), cam * value, cam)
    for value, name in enumerate(ids):
        assert (load_cams(cam_path(tmp_path, name))[1] == value).all()


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b", ""])
def test_ids_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="relative path"):
        cam_path(tmp_path, name)


@pytest.mark.parametrize("lossless", [False, True])
def test_damage_is_named_never_returned(tmp_path: Path, lossless: bool) -> None:
    rng = np.random.default_rng(2)
    path = tmp_path / "image.cam"
    cam = smooth_cams(rng, 2, (20, 24))
    save_cams(path, np.array([0, 1, 5]), cam, cam, lossless=lossless)
    whole = path.read_bytes()
    expected = load_cams(path)
    for length in [0, 1, 10, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"image\.cam.*damaged"):
            load_cams(path)
    for position in rng.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        try:
            loaded = load_cams(path)
        except DataError:
            continue
        for stored, original in zip(loaded, expected, strict=True):  # a byte without meaning, such as a time stamp
            np.testing.assert_array_equal(stored, original)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.cam"
    path.write_bytes(b"neither of the two formats")
    with pytest.raises(DataError, match="damaged"):
        load_cams(path)
    with path.open("wb") as file:
        np.savez(file, keys=np.array([0]), weight_cam=np.array([object()], dtype=object), prototype_cam=np.zeros(1))
    with pytest.raises(DataError, match="damaged"):
        load_cams(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_cams(tmp_path / "missing.cam")


def test_diverged_training_is_said_so(tmp_path: Path) -> None:
    cam = np.full((1, 2, 2), np.nan, np.float32)
    with pytest.raises(DataError, match="diverged"):
        save_cams(tmp_path / "a.cam", np.array([0]), cam, cam)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keys", [[1], [0, 2, 1], [0, 1, 1], [0], []])
def test_keys_that_do_not_fit_are_refused(tmp_path: Path, keys: list[int]) -> None:
    cam = np.zeros((3, 2, 2), np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        save_cams(tmp_path / "a.cam", np.array(keys), cam, cam)


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cam = np.zeros((1, 2, 2), np.float32)
    with pytest.raises(SFCError, match="file"):
        save_cams(tmp_path / "file" / "a.cam", np.array([0]), cam, cam)
