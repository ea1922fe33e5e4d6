"""The commands as Python functions: the same defaults, errors that are exceptions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from sfc import api
from sfc.errors import ConfigError, SFCError
from sfc.run.folder import RunFolder


@pytest.fixture
def finished(squares_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(squares_run, tmp_path / "run"))


def test_a_run_goes_on(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = api.run(run=finished)
    assert outcome.folder == finished
    assert {entry.run for entry in outcome.scores} == {"plain CAM", "SFC"}
    assert outcome.lines[0].startswith("made: crf masks")
    assert "classify: already there" in capfd.readouterr().err


def test_settings_go_on_top_and_are_refused_as_by_the_command(finished: Path, squares: Path) -> None:
    with pytest.raises(ConfigError, match="seed was 10"):
        api.run(run=finished, settings={"seed": 11})
    with pytest.raises(ConfigError, match="there is no setting"):
        api.run(run=finished, settings={"classify.training.epocs": 11})
    with pytest.raises(SFCError, match="name a data set"):
        api.run()
    with pytest.raises(ConfigError, match="a run has begun here"):
        api.plan(squares, run=finished)


def test_predict(finished: Path, squares: Path, tmp_path: Path) -> None:
    predictions = api.predict(finished, [squares / "val"], tmp_path / "out", crf=True, scales=[1.0])
    found = list(predictions.masks())
    assert predictions.classes == ("red", "green", "blue")
    assert len(found) == 12  # 6 photographs and their masks, which are pictures too
    assert all(mask.dtype == np.uint8 and mask.shape == (48, 48) for _, _, mask in found)
    assert (tmp_path / "out" / "gallery" / "index.html").exists()
    with pytest.raises(SFCError):
        api.predict(finished, [tmp_path / "nowhere"], tmp_path / "out")


def test_a_plan_and_its_run_have_one_folder(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def plan_run(source: Path, options: dict, folder: RunFolder, budget: str) -> None:
        seen.update(source=source, options=options, folder=folder.root, budget=budget)

    monkeypatch.setattr(api, "plan_run", plan_run)
    monkeypatch.chdir(tmp_path)
    api.plan(squares, budget="30m", settings={"classify.training.epochs": 3, "methods": ["cam"]})
    assert seen["options"] == {"classify": {"training": {"epochs": 3}}, "methods": ["cam"]}
    assert (seen["folder"], seen["budget"]) == (Path("runs") / squares.name, "30m")
