"""Compiling kernels: said once, kept on disk, possible where nothing can be written; vectors in numba code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from sfc.kernels import compiling as kernels
from sfc.kernels.lanes import exp, fill, largest, load, store, total

NOTICE = "sfc: compiling the kernels, once on this machine\n"
CALL = """
import numpy as np
from sfc.refine.crf.lattice_filter import scale_weights, splat_ones
simplices, weights, values = np.zeros((1, 2), np.int32), np.ones((1, 2), np.float32), np.zeros(1, np.float32)
splat_ones(simplices, weights, values)
scale_weights(simplices, weights, values, np.float32(1))
print(values[0])
"""


def call_kernels(cache: Path, before: str = "") -> tuple[str, str]:
    """Output and error output of a new process that calls two kernels."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", before + CALL]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return result.stdout.strip(), result.stderr


def test_compiling_is_said_once_and_the_next_process_loads_from_disk(tmp_path) -> None:
    assert call_kernels(tmp_path) == ("2.0", NOTICE)
    assert call_kernels(tmp_path) == ("2.0", "")


def test_kernels_are_compiled_again_when_a_part_of_them_changed(tmp_path) -> None:
    changed = "import sfc.kernels.compiling as c; c.parts_digest = lambda: 'other parts'\n"
    assert call_kernels(tmp_path) == ("2.0", NOTICE)
    assert call_kernels(tmp_path, changed) == ("2.0", NOTICE)
    assert call_kernels(tmp_path, changed) == ("2.0", "")


def test_kernels_compile_where_no_cache_folder_can_be_written(monkeypatch) -> None:
    compile_with = numba.njit

    def without_folder(*arguments, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compile_with(*arguments, **options)

    monkeypatch.setattr(numba, "njit", without_folder)
    assert kernels.kernel(lambda number: number + 1)(1) == 2


def test_compiling_the_crf_leaves_nothing_to_compile_for_images_of_three_channels() -> None:
    code = """
import numpy as np
from sfc.refine.crf.dense import compile_kernels
from sfc.refine.crf.lattice_filter import blur, scale_weights, splat_ones
from sfc.refine.crf.lattice_kernels import build, chain
from sfc.refine.crf.mean_field import update
compiled = lambda: [len(kernel.signatures) for kernel in (blur, build, chain, scale_weights, splat_ones, update)]
compile_kernels()
before = compiled()
from sfc.refine.crf.dense import dense_crf
image = np.zeros((3, 4, 3), np.uint8)
for labels in range(1, 20):
    dense_crf(image, logits=np.zeros((labels, 3, 4), np.float32))
    dense_crf(image, labels=np.zeros((3, 4), np.uint8), num_labels=labels)
    dense_crf(image[::2, ::-1], labels=np.eye(3, 4, dtype=int)[::2, ::-1], num_labels=labels + 1)
print(compiled() == before, min(before))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True 1"


@kernels.kernel
def apply_exp(values, lanes):
    for start in range(0, values.size, len(lanes)):
        store(values, start, exp(load(values, start, lanes)))


@kernels.kernel
def reduce(values, lanes):
    return largest(load(values, 1, lanes)), total(load(values, 1, lanes)), total(fill(values[0], lanes))


@pytest.mark.parametrize("width", [1, 2, 8])
def test_exp_is_exact_to_float32(width) -> None:
    numbers = -np.concatenate([np.linspace(0, 79.99, 4000), np.logspace(-8, 0, 4000)]).astype(np.float32)
    result = numbers.copy()
    apply_exp(result, (0,) * width)
    np.testing.assert_allclose(result, np.exp(numbers.astype(np.float64)), rtol=2e-7)


def test_exp_far_below_zero_is_zero() -> None:
    result = np.array([-80.5, -1e4, -1e30, -np.inf], np.float32)
    apply_exp(result, (0, 0))
    np.testing.assert_array_equal(result, 0)


@pytest.mark.parametrize("width", [1, 4, 8])
def test_reductions_over_lanes(width) -> None:
    values = np.random.default_rng(0).normal(size=9).astype(np.float32)
    part = values[1 : 1 + width]
    expected = part.max(), part.sum(), width * values[0]
    np.testing.assert_allclose(reduce(values, (0,) * width), expected, rtol=1e-6)
