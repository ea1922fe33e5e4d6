"""Signs of one photograph: known maps, and a loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfc.signs.photograph import LUMA, photo_signs


def stored(*foreground: np.ndarray) -> np.ndarray:
    """Maps in [0, 1] as the store has them: background first, foreground counted twice."""
    background = 1 - np.max(foreground, axis=0)
    background = background / max(float(background.max()), 1e-5)
    return np.stack([background + 0.4, *(2 * cam for cam in foreground)]).astype(np.float32)


def square(side: int, low: float = 0.0) -> np.ndarray:
    cam = np.full((20, 20), low)
    cam[4 : 4 + side, 4 : 4 + side] = 1
    return cam


def picture(side: int) -> np.ndarray:
    """A bright square on dark ground."""
    return (np.stack([square(side)] * 3, axis=2) * 200 + 20).astype(np.uint8)


def test_a_sharp_map_on_its_object() -> None:
    signs = photo_signs(picture(8), stored(square(8)), stored(square(8)))
    assert signs.level[0] == pytest.approx(64 / 400)
    assert signs.coverage[0] == pytest.approx(64 / 400)
    assert signs.agreement[0] == 1
    assert signs.doubt[0] == 0
    assert signs.edges[0] > 5  # its contour is the only edge of the photograph


def test_a_flat_map_has_a_high_level_and_a_contour_that_means_nothing() -> None:
    signs = photo_signs(picture(8), stored(square(1, low=0.9)), stored(square(1, low=0.9)))
    assert signs.level[0] > 0.89
    assert signs.coverage[0] == 1
    assert np.isnan(signs.edges[0])


def test_a_class_that_gets_nothing() -> None:
    strong, weak = square(8), square(8) * 0.4
    signs = photo_signs(picture(8), stored(strong, weak), stored(strong, weak))
    assert signs.coverage.tolist() == [pytest.approx(64 / 400), 0]
    assert np.isnan(signs.agreement[1])


def test_maps_that_disagree() -> None:
    signs = photo_signs(picture(8), stored(square(8)), stored(np.roll(square(8), 8, axis=1)))
    assert signs.agreement[0] == 0


def test_doubt_is_what_a_weaker_background_would_give_away() -> None:
    halo = square(8)
    halo[14:17, 4:12] = 0.45  # twice 0.45 loses against 1.4 - 0.45 * something, and wins against half of it
    signs = photo_signs(picture(8), stored(halo), stored(halo))
    assert signs.doubt[0] == pytest.approx(24 / 400)


@given(st.integers(0, 10_000))
def test_against_a_loop_over_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, channels = int(rng.integers(2, 7)), int(rng.integers(2, 7)), int(rng.integers(2, 4))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    weight, prototype = (rng.random((2, channels, height, width)) * 2).astype(np.float32)
    signs = photo_signs(image, weight, prototype)
    fused = weight + prototype
    grey = image.astype(np.float32) @ LUMA
    for channel in range(1, channels):
        covered = doubtful = both = either = 0
        contour, strengths = [], []
        for y in range(height):
            for x in range(width):
                label = int(fused[:, y, x].argmax())
                covered += label == channel
                daring = int(np.array([fused[0, y, x] / 2, *fused[1:, y, x]]).argmax())
                doubtful += label == 0 and daring == channel
                one, other = (int(maps[:, y, x].argmax()) == channel for maps in (weight, prototype))
                both += one and other
                either += one or other
                steps = [0.0]
                crosses = False
                for below, right in ((y + 1, x), (y, x + 1)):
                    if below < height and right < width:
                        steps.append(abs(float(grey[below, right] - grey[y, x])))
                        crosses |= (int(fused[:, below, right].argmax()) == channel) != (label == channel)
                strengths.append(max(steps))
                if crosses:
                    contour.append(max(steps))
        pixels = height * width
        assert signs.coverage[channel - 1] == pytest.approx(covered / pixels)
        assert signs.doubt[channel - 1] == pytest.approx(doubtful / pixels)
        assert signs.level[channel - 1] == pytest.approx(weight[channel].mean() / 2, rel=1e-5)
        expected = both / either if either else np.nan
        assert signs.agreement[channel - 1] == pytest.approx(expected, nan_ok=True)
        expected = np.mean(contour) / np.mean(strengths) if contour and max(strengths) else np.nan
        assert signs.edges[channel - 1] == pytest.approx(expected, rel=1e-4, nan_ok=True)


def test_what_does_not_belong_together_is_refused() -> None:
    maps = stored(square(8))
    with pytest.raises(ValueError, match="maps of"):
        photo_signs(picture(8)[:10], maps, maps)
    with pytest.raises(ValueError, match="maps of"):
        photo_signs(picture(8), maps[:1], maps[:1])
