"""Workers hand over no more than the shared memory holds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfc.engine import loading
from sfc.engine.loading import AHEAD, IN_USE, SHARE, Ahead, affordable, run_ahead, sample_bytes

MB = 2**20


@given(workers=st.integers(0, 64), batch=st.integers(0, 400 * MB), free=st.integers(0, 2000 * MB))
def test_what_lies_ready_fits(workers: int, batch: int, free: int) -> None:
    ahead = run_ahead(workers, batch, free)
    assert ahead.workers <= workers
    assert ahead.batches <= AHEAD
    assert (ahead.batches == 0) == (ahead.workers == 0)
    if ahead.workers:
        assert (ahead.workers * ahead.batches + IN_USE) * batch <= SHARE * free


@pytest.mark.parametrize(
    ("free", "expected"),
    [(None, (2, 4)), (4000 * MB, (2, 4)), (160 * MB, (2, 2)), (90 * MB, (1, 1)), (64 * MB, (0, 0)), (0, (0, 0))],
)
def test_a_batch_of_16_crops_of_512(free: int | None, expected: tuple[int, int]) -> None:
    assert run_ahead(2, 16 * 3 * 512 * 512, free) == Ahead(*expected)


def test_a_container_with_little_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = {(0, 0): {"image": torch.zeros(3, 512, 512, dtype=torch.uint8), "name": "x"}}
    monkeypatch.setattr(loading, "free_shared_memory", lambda: 64 * MB)
    assert affordable(samples, 16, 2, speak=True) == Ahead(0, 0)
    said = capsys.readouterr().err
    assert "shared memory has 64 MB free, too little for machine.workers 2: none prepare images" in said
    assert affordable(samples, 16, 2, speak=False) == Ahead(0, 0)
    monkeypatch.setattr(loading, "free_shared_memory", lambda: 4000 * MB)
    assert affordable(samples, 16, 2, speak=True) == Ahead(2, AHEAD)
    assert capsys.readouterr().err == ""


def test_no_workers_need_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "free_shared_memory", lambda: 0)
    assert affordable({}, 16, 0, speak=True) == Ahead(0, 0)


def test_an_unreadable_sample_has_no_bytes() -> None:
    assert sample_bytes(ValueError("unreadable")) == 0
