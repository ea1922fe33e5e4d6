"""A corrected tag, an excluded photograph: the classifier stays, what was made of them is made again, nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import sfc.amend.amend
from sfc.cli import main
from sfc.config import RunConfig, load_config
from sfc.errors import SFCError
from sfc.localize.store import cam_path, load_cams
from sfc.run.lock import only_command


@pytest.fixture(scope="module")
def trained(squares: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the data set and a finished run of it."""
    place = tmp_path_factory.mktemp("amended")
    shutil.copytree(squares, place / "data")
    options = (f"--data.root={place / 'data'}", "--methods", "cam", '--predict.ways=["single"]')
    assert main(["run", "--config", str(recipe), *options, "--run", str(place / "run")]) == 0
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of it; the data set where it was."""
    for path in tmp_path.iterdir():
        shutil.rmtree(path)
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path


@pytest.fixture
def table(trained: Path) -> Iterator[Path]:
    """The table of tags, which is as it was after the test."""
    path = trained / "data" / "train.csv"
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


def made(folder: Path, pattern: str) -> dict[str, tuple[int, bytes]]:
    """Time of change and content of the files below that fit."""
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def correct(table: Path, image: int) -> str:
    """Gives one photograph another tag; says which it gets."""
    rows = table.read_text().splitlines()
    name, tags, *rest = rows[1 + image].split(",")
    new = next(tag for tag in ("red", "green", "blue") if tag not in tags.split(";"))
    rows[1 + image] = ",".join([name, new, *rest])
    table.write_text("\n".join(rows) + "\n")
    return new


def same_but(before: dict[str, tuple[int, bytes]], now: dict[str, tuple[int, bytes]], name: str) -> None:
    assert before.keys() == now.keys()
    assert [each for each in before if before[each] != now[each]] == [name]


def test_a_corrected_tag_is_made_again_alone(
    place: Path, trained: Path, table: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = place / "run"
    new = correct(table, 3)
    assert main(["run", "--run", str(run)]) == 2
    assert f"`sfc amend {run}` keeps it and makes again what was made of them" in capfd.readouterr().err
    before = {pattern: made(run, f"cam/{pattern}") for pattern in ("cams/train/train/*", "masks/crf/train/*")}
    weights, segmenter = made(run, "cam/classify/checkpoint.pt"), made(run, "cam/segmenter/*/checkpoint.pt")

    assert main(["amend", str(run)]) == 0
    out = capfd.readouterr().out
    assert "train/3: was " in out
    assert f"is {new}" in out
    assert "trains again: cam/segmenter/crf; the classifier stays" in out
    assert not cam_path(run / "cam" / "cams" / "train", "train/3").exists()

    assert main(["run", "--run", str(run)]) == 0
    captured = capfd.readouterr()
    assert "plain CAM: classify: already there" in captured.err
    assert "kept: the classifier is from before a correction of 1 photograph (train/3)" in captured.out
    assert made(run, "cam/classify/checkpoint.pt") == weights
    same_but(before["cams/train/train/*"], made(run, "cam/cams/train/train/*"), "cam/cams/train/train/3.cam")
    same_but(before["masks/crf/train/*"], made(run, "cam/masks/crf/train/*"), "cam/masks/crf/train/3.png")
    keys, *_ = load_cams(cam_path(run / "cam" / "cams" / "train", "train/3"))
    classes = (trained / "data" / "classes.txt").read_text().split()
    assert list(keys) == [0, classes.index(new)]
    assert made(run, "cam/segmenter/*/checkpoint.pt") != segmenter
    assert main(["amend", str(run)]) == 0
    assert "nothing changed" in capfd.readouterr().out


def test_a_corrected_tag_of_validation_needs_no_amending(
    place: Path, trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing learnt from it: its maps are made again, and a segmenter is not told the tags."""
    run, table = place / "run", trained / "data" / "val.csv"
    before, weights = table.read_bytes(), made(run, "cam/*/**/checkpoint.pt")
    maps, masks = made(run, "cam/cams/val/**/*.cam"), made(run, "cam/predictions/crf/val/single/**/*.png")
    try:
        new = correct(table, 2)
        assert main(["evaluate", "--run", str(run)]) == 2
        assert "2.cam: not from what is there now (CAMs of val); run `sfc localize` first" in capfd.readouterr().err
        assert main(["run", "--run", str(run)]) == 0
        keys, *_ = load_cams(cam_path(run / "cam" / "cams" / "val", "val/2"))
        classes = (trained / "data" / "classes.txt").read_text().split()
        assert list(keys) == [0, classes.index(new)]
        same_but(maps, made(run, "cam/cams/val/**/*.cam"), "cam/cams/val/val/2.cam")
        assert made(run, "cam/*/**/checkpoint.pt") == weights
        assert made(run, "cam/predictions/crf/val/single/**/*.png") == masks
    finally:
        table.write_bytes(before)


def test_an_excluded_photograph_is_learnt_from_no_more(
    place: Path, trained: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = place / "run"
    (place / "exclude.csv").write_text("image\ntrain/5\ntrain/7\n")
    monkeypatch.chdir(place)
    assert main(["amend", "run", "--exclude", "exclude.csv"]) == 0
    assert "train/5: is gone\ntrain/7: is gone\n" in capfd.readouterr().out
    weights, masks = made(run, "cam/classify/checkpoint.pt"), made(run, "cam/masks/crf/train/*")
    assert len(masks) == 10
    assert main(["run", "--run", "run"]) == 0
    assert made(run, "cam/classify/checkpoint.pt") == weights
    assert made(run, "cam/masks/crf/train/*") == masks
    # And back: they take part again.
    assert main(["amend", "run", "--exclude", ""]) == 0
    assert "train/5: is new" in capfd.readouterr().out
    assert main(["run", "--run", "run"]) == 0
    assert len(made(run, "cam/masks/crf/train/*")) == 12


def test_what_learnt_from_the_truth_minds_no_tag(place: Path, table: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = place / "run"
    assert main(["segment", "--run", str(run), "--segment.masks", "truth"]) == 0
    correct(table, 4)
    weights = made(run, "cam/segmenter/truth/checkpoint.pt")
    capfd.readouterr()
    assert main(["amend", str(run)]) == 0
    assert "trains again: cam/segmenter/crf; the classifier stays" in capfd.readouterr().out
    assert made(run, "cam/segmenter/truth/checkpoint.pt") == weights
    (place / "exclude.csv").write_text("image\ntrain/4\n")
    assert main(["amend", str(run), "--exclude", str(place / "exclude.csv")]) == 0
    assert "trains again: cam/segmenter/truth; the classifier stays" in capfd.readouterr().out
    assert not (run / "cam" / "segmenter" / "truth").exists()


def test_a_damaged_list_of_images_makes_all_of_them_again(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = place / "run"
    images = run / "cam" / "classify" / "images.json"
    whole = json.loads(images.read_text())
    for content in ("", "[1]", json.dumps({**whole, "train/1": 5, "train/2": [["red"]], "train/3": [5, "red"]})):
        images.write_text(content)
        assert main(["amend", str(run)]) == 0
        said = capfd.readouterr().out
        assert "train/1: is new\ntrain/2: is new\ntrain/3: is new\n" in said
        assert json.loads(images.read_text()) == whole
    assert ("train/4" in said) is False


def test_what_was_killed_on_its_way_is_done_by_the_same_call(
    place: Path, table: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = place / "run"
    correct(table, 2)
    for function in ("_remove", "write_note", "write_json", "write_settings"):
        with monkeypatch.context() as patch:
            patch.setattr(sfc.amend.amend, function, _killed)
            with pytest.raises(KeyboardInterrupt):
                sfc.amend.amend.amend(_config(run), run)
        assert list(made(run, "cam/classify/checkpoint.pt")) == ["cam/classify/checkpoint.pt"]
    assert main(["amend", str(run)]) == 0
    assert main(["run", "--run", str(run)]) == 0
    assert cam_path(run / "cam" / "cams" / "train", "train/2").exists()
    capfd.readouterr()


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _config(run: Path) -> RunConfig:
    return load_config([run / "config.yaml"])


def test_a_classifier_that_cannot_stay_is_refused(
    place: Path, trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert main(["amend", *arguments]) == 2
        return capfd.readouterr().err

    run = place / "run"
    before = made(run, "**/*")
    assert "no run here" in refused(str(place / "none"))
    assert "excludes 'nobody', which is no training image" in refused(
        str(run), "--exclude", str(_table(place, "nobody"))
    )
    settings = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(settings.replace("\nseed: 10\n", "\nseed: 1\n"))
    assert "was begun with other settings: seed was 10 and is 1" in refused(str(run))
    (run / "config.yaml").write_text(settings)
    names = trained / "data" / "classes.txt"
    kept = names.read_text()
    try:
        names.write_text(kept + "grey\n")
        assert "the classes changed, so it has to be trained again" in refused(str(run))
    finally:
        names.write_text(kept)
    assert made(run, "cam/**/*") == {name: value for name, value in before.items() if name.startswith("cam/")}
    (run / "cam" / "classify" / "origin.json").unlink()
    assert "no trained classifier to keep; `sfc run` trains one" in refused(str(run))


def _table(place: Path, name: str) -> Path:
    path = place / "wrong.csv"
    path.write_text(f"image\n{name}\n")
    return path


def test_two_commands_do_not_meet(place: Path) -> None:
    with only_command(place / "run"), pytest.raises(SFCError, match="in use by"):
        sfc.amend.amend.amend(_config(place / "run"), place / "run")
