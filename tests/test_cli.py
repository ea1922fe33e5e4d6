"""The command line, end to end: help at once, bad input in one sentence, saved settings, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc import cli
from sfc.cli import COMMANDS, main
from sfc.config import load_config
from sfc.errors import DataError
from sfc.pipeline import EVERYTHING


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What a refusal says: exit code 2, one line for the user, no traceback."""
        assert self.code == 2, self.err
        assert "Traceback" not in self.err
        assert "usage:" not in self.err
        (line,) = [line for line in self.err.splitlines() if line.startswith("sfc:")]
        assert self.err.endswith(line + "\n")
        return line.removeprefix("sfc: ")


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a command in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def data(squares: Path, tmp_path: Path) -> Path:
    """A copy of the data set that may be broken."""
    return Path(shutil.copytree(squares, tmp_path / "data"))


@pytest.fixture
def finished(squares_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(squares_run, tmp_path / "run"))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes, as on a full disk: the system itself refuses."""
    resource = pytest.importorskip("resource", reason="limits of files are Unix's")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


HEAVY = ("torch", "torchvision", "timm", "lightning_fabric", "matplotlib", "scipy", "numba", "tensorboard", "PIL")


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys, time; from sfc.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        f"found = [name for name in {HEAVY} if name in sys.modules]\n"
        "print(found, time.process_time(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    found, _, seconds = done.stderr.strip().rpartition(" ")
    assert found == "[]"
    assert float(seconds) < 2
    for name in COMMANDS:
        assert f"\n    {name} " in done.stdout
    assert set(EVERYTHING) < set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--help" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--bogus", "--run", "x"], "unrecognized arguments: --bogus"),
        (["run", "--classify.training.epocs=3", "--run=x"], "unrecognized arguments: --classify.training.epocs=3"),
        (["run", "--classify.training.epochs", "many", "--run=x"], "classify.training.epochs must be int, not many"),
        (["run", "--classify.training.batch", "0", "--run=x"], "classify.training.batch must be at least 1, not 0"),
        (["run", "--config"], "argument --config: expected one argument"),
        (["run", "--config", "none.yaml"], "none.yaml: there is no such recipe"),
        (["run", "--config", "synthetic", "--methods", "cam", "sfx"], "methods"),
        (["run"], "name a data set, a recipe with --config NAME, or a run folder with --run FOLDER"),
        (["evaluate"], "name a data set, a recipe with --config NAME, or a run folder with --run FOLDER"),
        (["study"], "name a recipe with --config NAME, or a data set"),
        (["study", "--config", "synthetic", "--seeds", "0"], "--seeds and --processes are at least 1"),
        (["demo", "--seed", "-1"], "seed must be at least 0, not -1"),
        (["check"], "name a data set: a folder, a table, or a recipe with --config"),
        (["check", "nowhere"], "nowhere: there is no such file or folder"),
        (["prepare", "voc"], "the following arguments are required"),
        (["prepare", "voc", "x", "--archive", "none.tar"], "none.tar: there is no such archive"),
        (["prepare", "voc", "x", "--download", "2014"], "--download for voc takes 2012 only"),
    ],
)
def test_bad_command_lines(call, arguments: list[str], words: str) -> None:
    assert words in call(*arguments).sentence
    assert list(Path.cwd().rglob("config.yaml")) == []


@pytest.mark.parametrize(("arguments", "words"), [([], "required: COMMAND"), (["trian"], "invalid choice: 'trian'")])
def test_no_command_or_an_unknown_one(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data:\n  rot: x", "there is no setting 'data.rot'"),
        ("baseline: 3", "there is no setting 'baseline'"),
        ("seed: x", "seed must be int, not x"),
        ("data: [", "cannot be read as YAML"),
    ],
)
def test_bad_recipes_are_named(call, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    sentence = call("run", f"--config={path}", "--run=x").sentence
    assert sentence.startswith(f"{path}: ")
    assert words in sentence


INTERRUPTED = "sfc: interrupted; the same command goes on from the last checkpoint or finished image\n"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError("a.png", "is broken"), 2, "sfc: a.png: is broken\n"),
        (
            KeyboardInterrupt(),
            130,
            "sfc: interrupted; the same command goes on from the last checkpoint or finished image\n",
        ),
    ],
)
def test_exit_codes(call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("sfc.pipeline.run", fail)
    outcome = call("run", "--config=synthetic", "--run=x")
    assert (outcome.code, outcome.err, outcome.out) == (code, words, "")


def test_a_fault_of_the_program_keeps_its_traceback(call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sfc.pipeline.run", fail)
    with pytest.raises(ZeroDivisionError):
        call("run", "--config=synthetic", "--run=x")


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_enough_is_no_error(lines: int) -> None:
    code = (
        "import sys, sfc.cli\n"
        f"sfc.cli.COMMANDS['check'] = ('x', lambda *_: [print('line') for _ in range({lines})] and 0)\n"
        "sys.stdin.read()\n"
        "sys.exit(sfc.cli.main(['check']))"
    )
    pipe = subprocess.PIPE
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=buffered) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")


def test_a_run_goes_on_with_its_own_settings(call, finished: Path, recipe: Path) -> None:
    """Nothing but the folder is named; the recipe is gone; the scores are those of before, an override wins."""
    before = snapshot(finished)
    first = call("run", "--run", finished)
    assert first.code == 0, first.err
    assert "CAMs on squares" not in first.out
    assert f"page: {finished / 'report' / 'index.html'}" in first.out
    after = snapshot(finished)
    touched = {name for name in before if before[name] != after[name]}
    assert touched - {"times.json"} == {"config.yaml", "manifest.json", "cam/scores.json", "sfc/scores.json"}
    assert {name for name in touched if before[name][1] != after[name][1]} <= {"manifest.json", "times.json"}
    assert load_config([finished / "config.yaml"]) == load_config([recipe])
    again = call("evaluate", "--run", finished)
    assert again.code == 0
    assert "CAMs on squares" in again.out
    whole = call("run", "--run", finished, "--details").out
    without_time = [[line for line in out.splitlines() if "made: " not in line] for out in (whole, again.out)]
    assert without_time[0] == without_time[1]


def test_changed_settings_are_refused(call, finished: Path) -> None:
    before = snapshot(finished)
    sentence = call("run", "--run", finished, "--seed=11").sentence
    assert sentence.startswith(f"{finished / 'cam/classify/origin.json'} was begun with other settings: seed was 10")
    assert snapshot(finished) == before


def test_a_run_folder_of_an_earlier_version_is_refused(call, finished: Path, recipe: Path) -> None:
    (finished / "manifest.json").write_text('{"command": ["sfc"], "versions": {}}')
    before = snapshot(finished)
    for arguments in (["--config", recipe], []):
        sentence = call("run", *arguments, "--run", finished).sentence
        assert sentence == (
            f"{finished}: made by another version of sfc, whose run folders this one cannot go on with; choose another "
            "folder"
        )
    assert snapshot(finished) == before


def test_recipes_are_listed(call) -> None:
    outcome = call("recipes")
    assert outcome.code == 0
    names = [line.split()[0] for line in outcome.out.splitlines()]
    assert names == sorted(["camvid", "ccp", "coco14", "paper", "synthetic", "voc12", "voc_animals"])


def test_check_of_a_sound_and_a_broken_folder(call, data: Path, tmp_path: Path) -> None:
    sound = call("check", data)
    assert sound.code == 0
    assert "All files can be read." in sound.out
    image = data / "train" / "4.png"
    image.write_bytes(image.read_bytes()[:300])
    broken = call("check", data, "--json", tmp_path / "found.json")
    assert broken.code == 2
    assert "train/4.png: the image is truncated or damaged" in broken.out
    assert "Traceback" not in broken.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert [entry["path"] for entry in found["broken"]] == [str(image)]


def spoil_missing_image(data: Path) -> str:
    (data / "train" / "4.png").unlink()
    return "train/4.png: there is no such image"


def spoil_truncated_image(data: Path) -> str:
    path = data / "train" / "4.png"
    path.write_bytes(path.read_bytes()[:300])
    return "train/4.png: the image is truncated or damaged"


def spoil_image_without_pixels(data: Path) -> str:
    (data / "train" / "4.png").write_bytes(b"")
    return "train/4.png: the file is empty"


def spoil_unknown_label(data: Path) -> str:
    edit(data / "train.csv", "train/4.png,", "train/4.png,purple;")
    return "train.csv, line 6: the label 'purple' is not in the class list"


def spoil_duplicate_ids(data: Path) -> str:
    edit(data / "train.csv", "train/5.png", "train/4.png")
    return "the image 'train/4.png' is there already"


def spoil_same_stem(data: Path) -> str:
    shutil.copy(data / "train" / "4.png", data / "train" / "5.jpeg")
    edit(data / "train.csv", "train/4.png", "train/5.jpeg")
    return "has the same path without suffix as"


def spoil_missing_table(data: Path) -> str:
    (data / "train.csv").unlink()
    return "train.csv: there is no such table"


def spoil_missing_class_list(data: Path) -> str:
    (data / "classes.txt").unlink()
    return "classes.txt: there is no such class list"


def test_a_table_that_was_not_read_is_said(
    squares: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for val, words in (
        ("", "val.csv lies beside train.csv and was not read; with --data.val val.csv it is"),
        ("val.csv", ""),
    ):
        config = load_config([recipe], [f"--data.root={squares}", f"--data.val={val}"])
        cli._print_run([], config, tmp_path)
        assert capsys.readouterr().out.strip() == words


def spoil_every_label(data: Path) -> str:
    rows = [line.split(",")[0] + "," for line in (data / "train.csv").read_text().splitlines()[1:]]
    (data / "train.csv").write_text("\n".join(["image,labels", *rows]) + "\n")
    return "no training image has a label"


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_missing_image,
        spoil_truncated_image,
        spoil_image_without_pixels,
        spoil_unknown_label,
        spoil_duplicate_ids,
        spoil_same_stem,
        spoil_missing_table,
        spoil_missing_class_list,
        spoil_every_label,
    ],
    ids=lambda spoil: spoil.__name__.removeprefix("spoil_"),
)
def test_bad_training_data(call, data: Path, recipe: Path, spoil, tmp_path: Path) -> None:
    words = spoil(data)
    arguments = [f"--config={recipe}", f"--data.root={data}", "--data.train_masks=", "--data.val=", "--methods=sfc"]
    sentence = call("run", *arguments, f"--run={tmp_path / 'run'}").sentence
    assert words in sentence
    assert str(data) in sentence or "no training image" in sentence
    assert not list((tmp_path / "run").rglob("*.pt"))
    assert not list((tmp_path / "run").rglob("*.tmp"))


def spoil_mask_size(data: Path) -> str:
    Image.fromarray(np.zeros((40, 48), dtype=np.uint8)).save(data / "val" / "2_mask.png")
    return "val/2_mask.png: the mask is 48x40 but its image is 48x48"


def spoil_mask_values(data: Path) -> str:
    Image.fromarray(np.full((48, 48), 4, dtype=np.uint8)).save(data / "val" / "2_mask.png")
    return "val/2_mask.png: mask values 4 are beyond the 3 classes"


def spoil_mask_kind(data: Path) -> str:
    Image.new("RGB", (48, 48)).save(data / "val" / "2_mask.png")
    return "val/2_mask.png: a mask is a palette or 8-bit grayscale PNG"


def spoil_mask_file(data: Path) -> str:
    (data / "val" / "2_mask.png").unlink()
    return "val/2_mask.png: there is no such mask"


@pytest.mark.parametrize(
    "spoil",
    [spoil_mask_size, spoil_mask_values, spoil_mask_kind, spoil_mask_file],
    ids=lambda spoil: spoil.__name__.removeprefix("spoil_"),
)
def test_bad_masks_keep_finished_work(call, data: Path, finished: Path, spoil) -> None:
    words = spoil(data)
    before = {
        name: entry for name, entry in snapshot(finished).items() if name.endswith((".pt", ".cam", "scores.json"))
    }
    assert words in call("evaluate", "--run", finished, "--methods=sfc", f"--data.root={data}").sentence
    after = snapshot(finished)
    assert {name: after[name] for name in before} == before


def test_damaged_results_of_earlier_stages(call, finished: Path) -> None:
    cam = finished / "sfc" / "cams" / "val" / "val" / "3.cam"
    cam.write_bytes(cam.read_bytes()[:100])
    sentence = call("evaluate", "--run", finished, "--methods=sfc").sentence
    assert sentence == f"{cam}: the CAM file is truncated or damaged; delete it and localize again"
    checkpoint = finished / "sfc" / "classify" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    for command in ("localize", "evaluate"):
        sentence = call(command, "--run", finished, "--methods=sfc").sentence
        assert "sfc/cams/train was made from something else (classify changed since)" in sentence
    (finished / "sfc" / "classify" / "origin.json").unlink()
    sentence = call("classify", "--run", finished, "--methods=sfc").sentence
    assert sentence.startswith(f"{checkpoint}: the checkpoint is damaged")
    (finished / "config.yaml").write_text("data: 3")
    saved = finished / "config.yaml"
    assert call("run", "--run", finished).sentence == f"{saved}: data is a section of settings, not 3"


def test_a_checkpoint_of_another_class_count(call, data: Path, finished: Path) -> None:
    (data / "classes.txt").write_text("red\ngreen\nblue\ngrey\n")
    for command in ("run", "localize", "evaluate"):
        sentence = call(command, "--run", finished, f"--data.root={data}").sentence
        assert sentence.startswith(f"{finished}/cam/classify was made from something else (classes changed since)")


def test_an_unfinished_training_is_not_used(call, finished: Path) -> None:
    (finished / "cam" / "classify" / "checkpoint.pt").unlink()
    sentence = call("localize", "--run", finished).sentence
    classifier = finished / "cam" / "classify"
    assert sentence == f"{classifier}: the training of the trained classifier is not finished; run `sfc classify` first"
    sentence = call("evaluate", "--run", finished).sentence
    assert sentence.startswith(f"{finished}/cam/cams/train was made from something else (classify changed since)")


def test_folders_that_cannot_be_used(call, recipe: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    sentence = call("run", f"--config={recipe}", f"--run={file / 'run'}").sentence
    assert sentence.startswith(f"{file / 'run'}: cannot be written (")
    sentence = call("run", f"--config={recipe}", f"--data.root={file}", "--run=x").sentence
    assert sentence == f"{file}: there is no such folder (data.root)"
    assert file.read_text() == "in the way"


@pytest.mark.parametrize(("size", "name"), [(600, "config.yaml"), (20_000, "sfc/classify/checkpoint.pt")])
def test_a_full_disk(call, recipe: Path, tmp_path: Path, size: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sfc", "classify"])  # it is written down, and its length is the test runner's
    folder = tmp_path / "run"
    with full_after(size):
        sentence = call("classify", f"--config={recipe}", f"--run={folder}", "--methods=sfc").sentence
    assert sentence == f"{folder / name}: cannot be written (File too large)"
    assert not (folder / name).exists()
    assert not list(folder.rglob("*.tmp"))


def test_a_full_disk_while_steps_are_logged(
    call, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes TensorBoard's events fails too, without a traceback of its own."""
    failed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    monkeypatch.setattr("sfc.engine.training_log.TrainingLog.TENSORBOARD_EVERY", 1)
    folder = tmp_path / "run"
    folder.mkdir()
    options = ["--methods=sfc", "--classify.training.epochs=15", "--machine.checkpoint_every=1000"]
    with full_after(4000):
        sentence = call("classify", f"--config={recipe}", f"--run={folder}", *options).sentence
    assert "log.csv" in sentence
    assert failed == []
    assert threading.excepthook == failed.append


def test_negatives_and_classes_without_images_are_allowed(call, data: Path, finished: Path, recipe: Path) -> None:
    (data / "classes.txt").write_text("red\ngreen\nblue\ngrey\n")
    assert any(line.endswith(",") for line in (data / "train.csv").read_text().splitlines())
    options = ["--methods=sfc", "--classify.training.epochs=1", "--data.val=", f"--data.root={data}", "--details"]
    outcome = call("run", f"--config={recipe}", f"--run={finished.parent / 'absent'}", *options)
    assert outcome.code == 0, outcome.err
    (row,) = [line for line in outcome.out.splitlines() if "grey" in line]
    assert "absent" in row
    assert "–" in row


def test_the_demo_is_the_packaged_recipe_with_its_seed(call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("sfc.pipeline.run", lambda *given: seen.append(given) or [])
    assert call("demo", "--seed", "7").code == 0
    ((config, folder),) = seen
    assert folder == Path("runs/demo")
    assert (config.data.format, config.seed, config.methods) == ("synthetic", 7, ("cam", "sfc"))
    assert (config.data.val, config.segment.masks) == ("val.csv", "pseudo")


def test_methods_are_named_one_after_the_other(call, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("sfc.pipeline.run", lambda *given, **_: seen.append(given[0].methods) or [])
    assert call("run", "--config", recipe, "--methods", "cam-half", "sfc-paper", "--seed", "3").code == 0
    assert call("run", "--config", recipe).code == 0
    assert seen == [("cam-half", "sfc-paper"), ("cam", "sfc")]


def test_a_run_is_named_after_its_recipe(call, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("sfc.pipeline.run", lambda config, folder, **stages: seen.append((folder, stages)) or [])
    assert call("run", "--config", recipe).code == 0
    assert call("localize", "--config", recipe).code == 0
    assert seen == [(Path("runs/recipe"), {"expected": {}}), (Path("runs/recipe"), {"stages": ("localize",)})]
