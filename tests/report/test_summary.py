"""The last lines of a command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sfc.config import RunConfig, load_config
from sfc.report.summary import summary
from sfc.run.folder import RunFolder


@pytest.fixture
def folder(squares_run: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(squares_run, tmp_path / "run")))


@pytest.fixture
def config(folder: RunFolder) -> RunConfig:
    return load_config([folder.config])


def test_what_was_made_how_good_where_and_what_next(folder: RunFolder, config: RunConfig) -> None:
    folder.times.write_text(json.dumps({"cam": {"classify": 100.0}, "sfc": {"classify": 200.5}}))
    lines = summary(config, folder, expected={"classify": 240.0})
    assert lines[0] == (
        "made: crf masks of the training photographs, segmenter, its masks of the validation photographs, in 5 min "
        "(planned: 4 min)"
    )
    assert [line.split(":")[0] for line in lines[1:3]] == ["good", "good"]
    assert f"segmenter: {folder.root / 'sfc/segmenter/crf'}" in lines
    assert lines[-1].startswith(f"next: sfc predict {folder.root} NEW_PHOTOGRAPHS")


def test_without_truth_the_maps_speak(folder: RunFolder, config: RunConfig) -> None:
    signs = {"soundness": 0.5, "flat": [], "lost": [], "words": "maps look sound", "classes": []}
    for name in ("cam", "sfc"):
        folder.system(name).scores.unlink()
        folder.system(name).signs.write_text(json.dumps(signs))
    said = [line for line in summary(config, folder) if line.startswith(("good", "maps"))]
    assert said == [
        f"maps: {name}: no truth to score against; by what they say of themselves, maps look sound"
        for name in ("cam", "sfc")
    ]


def test_of_an_empty_folder_there_is_nothing_to_say(config: RunConfig, tmp_path: Path) -> None:
    assert summary(config, RunFolder(tmp_path / "nowhere")) == []
