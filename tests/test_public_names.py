"""The names that others import from the package root."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sfc

NAMES = {
    "ImageBank",
    "MSDWLoss",
    "Model",
    "RelationNetwork",
    "SFCNetwork",
    "correlate_pixels",
    "dense_crf",
    "distribution_coefficient",
    "expected_resampling",
    "infer_cams",
    "load",
    "prototype_cam",
    "random_walk",
}


def test_every_public_name_resolves_and_is_listed() -> None:
    assert set(sfc.__all__) == NAMES
    for name in NAMES:
        assert getattr(sfc, name).__name__ == name
        assert name in dir(sfc)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = sfc.nonsense


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, sfc, sfc.cli, sfc.pipeline; print(*(name in sys.modules for name in ('torch', 'timm', 'numba')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False", "False"]
