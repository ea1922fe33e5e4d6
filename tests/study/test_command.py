"""`sfc study`, end to end on the tiny data set: pairs, resuming, several at once, the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sfc.cli import main
from sfc.run.folder import RunFolder
from sfc.study.trials import trials_of


def snapshot(folder: Path, pattern: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob(pattern)}


def test_trials_are_paired_seed_by_seed(tmp_path: Path) -> None:
    trials = trials_of(tmp_path, ("cam", "sfc"), (4, 5))
    assert [(trial.seed, trial.method) for trial in trials] == [(4, "cam"), (4, "sfc"), (5, "cam"), (5, "sfc")]
    assert len({trial.folder for trial in trials}) == 4


@pytest.fixture(scope="module")
def study(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of two methods and two seeds, made two at a time; not to be changed."""
    folder = tmp_path_factory.mktemp("study") / "study"
    arguments = ["study", "--config", str(recipe), "--methods", "cam", "sfc", "--seeds", "2", "--first-seed", "3"]
    assert main([*arguments, "--processes", "2", "--until", "refine", "--run", str(folder)]) == 0
    return folder


def test_what_a_study_leaves(study: Path) -> None:
    content = json.loads((study / "study.json").read_text())
    assert content["facts"]["seeds"] == "3, 4"
    rows = {(row["stage"], row["split"], row["what"], row["method"]): row for row in content["rows"]}
    own = rows["CAMs", "train", "W + P", "sfc"]
    assert set(own["miou"]["values"]) == {"3", "4"}
    baseline = rows["CAMs", "train", "W + P", "cam"]
    for seed in ("3", "4"):
        expected = own["miou"]["values"][seed] - baseline["miou"]["values"][seed]
        assert own["difference"]["values"][seed] == pytest.approx(expected)
        saved = json.loads((RunFolder(study / f"{seed}-sfc").system("sfc").scores).read_text())
        (score,) = [score for score in saved[0]["scores"] if score["what"] == "W + P"]
        assert score["fixed"] == own["miou"]["values"][seed]
    assert ("masks", "train", "relation labels", "sfc") in rows
    page = (study / "index.html").read_text()
    assert "data:image/png;base64," in page
    assert f"{own['difference']['mean']:+.1f}" in page
    assert (study / "3-cam" / "log.txt").stat().st_size > 0


def test_a_second_call_trains_nothing_and_says_the_same(
    study: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(study, tmp_path / "study"))
    before = {name: snapshot(folder, name) for name in ("*.pt", "*.cam", "*.png")}
    content = json.loads((folder / "study.json").read_text())
    arguments = ["study", "--config", str(recipe), "--methods", "cam", "sfc", "--seeds", "2", "--first-seed", "3"]
    assert main([*arguments, "--until", "refine", "--run", str(folder)]) == 0
    after = {name: snapshot(folder, name) for name in ("*.pt", "*.cam", "*.png")}
    made = {path for name in before for path in after[name] if before[name].get(path) != after[name][path]}
    assert made == {str(folder / "seeds.png")}
    assert json.loads((folder / "study.json").read_text())["rows"] == content["rows"]
    assert "W + P" in capsys.readouterr().out


@pytest.mark.parametrize(("refine", "mapped"), [("crf", 3), ("irn", 12)])
def test_only_scored_images_get_maps_where_those_suffice(
    refine: str, mapped: int, recipe: Path, squares: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.csv"
    few.write_text("".join((squares / "train_with_masks.csv").read_text().splitlines(keepends=True)[:4]))
    arguments = ["study", "--config", str(recipe), "--methods", "cam", "--seeds", "1", "--until", "refine"]
    arguments += ["--data.train_masks", str(few), "--refine.method", refine, "--run", str(tmp_path / "study")]
    assert main(arguments) == 0
    system = RunFolder(tmp_path / "study" / "0-cam").system("cam")
    assert len(list(system.cams("train").rglob("*.cam"))) == mapped
    assert len(list(system.cams("val").rglob("*.cam"))) == 6
    content = json.loads((tmp_path / "study" / "study.json").read_text())
    assert "3 scored images of train" in content["facts"]["data"]
    assert len(list(system.masks(refine).rglob("*.png"))) == mapped


def test_without_masks_of_training_images_the_validation_images_alone_get_maps(recipe: Path, tmp_path: Path) -> None:
    arguments = ["study", "--config", str(recipe), "--methods", "cam", "--seeds", "1", "--until", "localize"]
    assert main([*arguments, "--data.train_masks", "", "--run", str(tmp_path / "study")]) == 0
    system = RunFolder(tmp_path / "study" / "0-cam").system("cam")
    assert not list(system.cams("train").rglob("*.cam"))
    assert len(list(system.cams("val").rglob("*.cam"))) == 6
    rows = json.loads((tmp_path / "study" / "study.json").read_text())["rows"]
    assert {row["split"] for row in rows} == {"val"}


def test_a_study_that_goes_further_makes_the_other_maps(recipe: Path, squares: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("".join((squares / "train_with_masks.csv").read_text().splitlines(keepends=True)[:4]))
    arguments = ["study", "--config", str(recipe), "--methods", "cam", "--seeds", "1", "--run", str(tmp_path / "study")]
    arguments += ["--data.train_masks", str(few)]
    assert main([*arguments, "--until", "refine"]) == 0
    trained = snapshot(tmp_path, "*.pt")
    assert main([*arguments, "--until", "segment"]) == 0
    system = RunFolder(tmp_path / "study" / "0-cam").system("cam")
    assert len(list(system.cams("train").rglob("*.cam"))) == 12
    assert trained.items() <= snapshot(tmp_path, "*.pt").items()


def test_other_settings_are_refused_and_the_studys_own_stay(
    study: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(study, tmp_path / "study"))
    settings = (folder / "config.yaml").read_bytes()
    arguments = ["study", "--config", str(recipe), "--methods", "cam", "--seeds", "1", "--first-seed", "3"]
    assert main([*arguments, "--classify.training.epochs", "7", "--until", "refine", "--run", str(folder)]) == 2
    assert "was begun with other settings" in capsys.readouterr().err
    assert (folder / "config.yaml").read_bytes() == settings


def test_one_seed_is_no_setting_of_a_study(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "--config", str(recipe), "--seed", "5", "--run", str(tmp_path / "study")]) == 2
    assert "--seed has no say in a study: --first-seed" in capsys.readouterr().err


def test_a_trial_that_fails_is_named(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["study", "--config", str(recipe), "--methods", "cam", "--seeds", "1", "--run", str(tmp_path / "study")]
    assert main([*arguments, "--data.root", str(tmp_path / "nowhere")]) == 2
    assert f"seed 0, cam: {tmp_path / 'nowhere'}: there is no such folder" in capsys.readouterr().err


def test_a_data_folder_needs_no_recipe(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "sfc.study.command.run_trials", lambda trials, settings, *_, **__: seen.append((trials, settings))
    )
    monkeypatch.setattr("sfc.study.command.rows_of", lambda _: [])
    monkeypatch.setattr("sfc.study.trials.Trial.scores", lambda _: [])
    monkeypatch.chdir(tmp_path)
    assert main(["study", str(squares), "--methods", "cam", "--seeds", "2"]) == 2  # nothing to score without a run
    ((trials, settings),) = seen
    assert [trial.folder for trial in trials] == [Path("runs") / f"study-{squares.name}" / f"{n}-cam" for n in (0, 1)]
    text = settings.read_text()
    assert "train_masks: train_with_masks.csv" in text
    assert f"root: {squares}" in text
