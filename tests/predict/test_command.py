"""`sfc predict` and `sfc export` from the command line, on a finished run of the squares."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sfc
from sfc.classify.inference import infer_cams
from sfc.classify.train import load_classifier
from sfc.cli import main
from sfc.config import load_config
from sfc.data.images import read_image, read_mask
from sfc.engine.image_work import BYTES_A_PIXEL
from sfc.predict import stage
from sfc.predict.folder import read_images
from sfc.predict.models import open_system
from sfc.refine.refiner import Maps

SQUARES = ("red", "green", "blue")
CPU = ["--machine.accelerator=cpu", "--machine.threads=1"]


def predict(*arguments: object) -> int:
    return main(["predict", *map(str, arguments), *CPU])


def masks(folder: Path) -> dict[str, np.ndarray]:
    root = folder / "masks"
    return {path.relative_to(root).as_posix(): read_mask(path, 3) for path in sorted(root.rglob("*.png"))}


@pytest.fixture
def photos(squares: Path, tmp_path: Path) -> Path:
    """Four photographs without labels, one of them larger, one in grey."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for index in range(2):
        shutil.copy(squares / "val" / f"{index}.png", folder / f"{index}.png")
    with Image.open(squares / "val" / "2.png") as image:
        image.resize((150, 90)).save(folder / "sub" / "wide.jpg")
        image.convert("L").save(folder / "sub" / "grey.png")
    return folder


def test_masks_of_a_folder_by_the_segmenter(squares_run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(squares_run, photos, "--out", out, "--overlays=true", "--probabilities=true") == 0
    found = masks(out)
    assert sorted(found) == ["0.png", "1.png", "sub/grey.png", "sub/wide.png"]
    assert found["sub/wide.png"].shape == (90, 150)
    probabilities = np.load(out / "probabilities" / "sub" / "wide.npy")
    assert probabilities.shape == (4, 90, 150)
    np.testing.assert_allclose(probabilities.sum(axis=0, dtype=np.float32), 1, atol=5e-3)
    assert (probabilities.argmax(axis=0) == found["sub/wide.png"]).mean() > 0.99
    assert (out / "overlays" / "0.jpg").is_file()
    note = json.loads((out / "predictions.json").read_text())
    assert note["classes"] == ["red", "green", "blue"]
    assert (note["settings"]["scales"], note["settings"]["tile"]) == ([1.0, 0.75, 0.5], 1024)


def test_what_is_there_stays_and_a_broken_photograph_stops_no_other(
    squares_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    whole = (photos / "1.png").read_bytes()
    (photos / "1.png").write_bytes(whole[: len(whole) // 2])
    assert predict(squares_run, photos, "--out", out) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sfc:")]
    assert "1.png: the image is truncated or damaged" in error
    assert sorted(masks(out)) == ["0.png", "sub/grey.png", "sub/wide.png"]
    assert main(["export", str(out), "--coco", str(tmp_path / "coco.json")]) == 0
    times = {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")}
    (photos / "1.png").write_bytes(whole)
    assert predict(squares_run, photos, "--out", out) == 0
    capsys.readouterr()
    assert len(masks(out)) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert predict(squares_run, photos, "--out", out, "--crf=true") == 2
    error = capsys.readouterr().err
    assert "settings.crf was None" in error
    names = "predictions.json, images.csv, masks, probabilities, overlays, gallery"
    assert f"Choose another folder, or delete {names} in {out} to make its files again" in error
    other = photos / "sub" / "0.png"
    shutil.copy(photos / "1.png", other)
    assert predict(squares_run, other, "--out", out) == 2
    assert "would overwrite the predictions of" in capsys.readouterr().err


def test_a_second_call_into_the_same_folder_loses_none_of_the_first(
    squares_run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, broken = tmp_path / "out", photos / "broken.png"
    broken.write_bytes(b"no image")
    untouched = stage.work_through

    def with_company(*arguments: Any) -> None:
        monkeypatch.setattr(stage, "work_through", untouched)
        assert predict(squares_run, photos / "0.png", "--out", out) == 0
        untouched(*arguments)

    monkeypatch.setattr(stage, "work_through", with_company)
    assert predict(squares_run, photos / "1.png", broken, "--out", out) == 2
    assert set(read_images(out / "images.csv")) == {"0", "1"}


def test_crf_scales_tiles_and_method_change_the_masks(squares_run: Path, photos: Path, tmp_path: Path) -> None:
    ways = {
        "plain call": [],
        "crf": ["--crf=true"],
        "one size": ["--scales=[1]"],
        "mirror": ["--mirror=true"],
        "mean": ["--pooling=mean"],
        "adjusted": ["--logit-adjustment=0.5"],
        "tiles": ["--tile=64"],
        "other method": ["--method=cam"],
    }
    probabilities = {}
    for name, options in ways.items():
        out = tmp_path / name
        assert predict(squares_run, photos / "sub" / "wide.jpg", "--out", out, "--probabilities=true", *options) == 0
        probabilities[name] = np.load(out / "probabilities" / "wide.npy")
    for name, values in probabilities.items():
        if name != "plain call":
            assert not np.array_equal(values, probabilities["plain call"]), name


def test_the_last_method_is_meant_where_none_is_named(squares_run: Path) -> None:
    assert open_system(str(squares_run))[1].root == squares_run / "sfc"
    config, folder = open_system(str(squares_run), "cam")
    assert folder.root == squares_run / "cam"
    assert config.classify.bank_draws == 0


@pytest.mark.parametrize(("source", "scale"), [("segmenter", 2.0), ("cams", 0.5)])
def test_no_more_photographs_at_once_than_fit_into_memory(
    source: str, scale: float, squares_run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[float] = []
    monkeypatch.setattr(stage, "work_through", lambda *arguments: needed.append(arguments[-1]))
    monkeypatch.setattr(stage, "write_gallery", lambda *_: Path())
    predict(squares_run, photos, f"--source={source}", f"--scales=[{scale}]", "--out", tmp_path / "out")
    assert needed == [BYTES_A_PIXEL * 90 * 150 * scale**2]


def test_a_segmenter_finds_only_what_the_tags_say(
    squares_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = photos / "labels.csv"
    table.write_text("image,labels\n0.png,red;blue\n1.png,\nsub/wide.jpg,green\n")
    chosen = [photos / "0.png", photos / "1.png", photos / "sub" / "wide.jpg"]
    for name, options in (("plain", []), ("given", ["--labels", table]), ("crf", ["--labels", table, "--crf=true"])):
        assert predict(squares_run, *chosen, *options, "--probabilities=true", "--out", tmp_path / name) == 0
    plain, given = (np.load(tmp_path / name / "probabilities" / "0.npy").astype(float) for name in ("plain", "given"))
    kept = plain * np.array([1, 1, 0, 1])[:, None, None]
    np.testing.assert_allclose(given, kept / kept.sum(axis=0), atol=2e-3)
    for name in ("given", "crf"):
        found = masks(tmp_path / name)
        assert set(np.unique(found["0.png"])) <= {0, 1, 3}
        assert not found["1.png"].any()
        assert set(np.unique(found["wide.png"])) <= {0, 2}
    assert predict(squares_run, *chosen, "--out", tmp_path / "given", "--probabilities=true") == 2
    assert "settings.labels was" in capsys.readouterr().err
    assert predict(squares_run, photos, "--labels", table, "--out", tmp_path / "more") == 2
    assert "grey.png: has no row in the table of labels" in capsys.readouterr().err
    # The same of a model folder, which knows no table of its own.
    assert main(["export", str(squares_run), "--model", str(tmp_path / "model")]) == 0
    assert predict(tmp_path / "model", *chosen, "--labels", table, "--out", tmp_path / "model-given") == 0
    same = masks(tmp_path / "model-given")
    assert all(np.array_equal(mask, same[name]) for name, mask in masks(tmp_path / "given").items())


def test_masks_by_cams_with_given_and_predicted_labels(
    squares_run: Path, squares: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = photos / "labels.csv"
    table.write_text("image,labels\n0.png,red;blue\n1.png,\nsub/wide.jpg,green\n")
    given = [squares_run, photos / "0.png", photos / "1.png", photos / "sub" / "wide.jpg", "--source=cams"]
    assert predict(*given, "--labels", table, "--out", tmp_path / "given") == 0
    found = masks(tmp_path / "given")
    assert set(np.unique(found["0.png"])) <= {0, 1, 3}
    assert not found["1.png"].any()
    assert set(np.unique(found["wide.png"])) <= {0, 2}
    assert found["wide.png"].shape == (90, 150)
    config = load_config([squares_run / "config.yaml"])
    net = load_classifier(config.classify, config.seed, SQUARES, squares_run / "sfc" / "classify")
    maps = Maps(*infer_cams(net, read_image(photos / "0.png"), [1, 0, 1], config.localize.scales))
    expected = maps.keys[maps.fused(config.refine.label_lambda).argmax(axis=0)]
    np.testing.assert_array_equal(found["0.png"], expected)
    assert predict(*given, "--labels", table, "--out", tmp_path / "other", "--method=cam") == 0
    table.write_text(table.read_text().replace("red;blue", "green"))
    assert predict(*given, "--labels", table, "--out", tmp_path / "given") == 2
    assert "settings.labels was" in capsys.readouterr().err
    assert predict(*given, "--out", tmp_path / "predicted", "--crf=true") == 0
    assert masks(tmp_path / "predicted")["wide.png"].shape == (90, 150)
    assert predict(squares_run, photos, "--source=cams", "--labels", table, "--out", tmp_path / "more") == 2
    assert "grey.png: has no row in the table of labels" in capsys.readouterr().err
    assert len(masks(tmp_path / "more")) == 3
    table.write_text("image,labels\n0.png,purple\n")
    assert predict(*given, "--labels", table, "--out", tmp_path / "bad") == 2
    assert "the label 'purple' is not in the class list" in capsys.readouterr().err
    assert predict(*given, "--probabilities=true", "--out", tmp_path / "bad") == 2
    assert "only a segmenter has them" in capsys.readouterr().err


def test_a_model_folder_predicts_like_its_run(squares_run: Path, photos: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    assert main(["export", str(squares_run), "--model", str(model)]) == 0
    assert sorted(path.name for path in model.iterdir()) == ["config.json", "model.safetensors"]
    for source, out in ((squares_run, "by run"), (model, "by model")):
        assert predict(source, photos / "0.png", "--out", tmp_path / out, "--probabilities=true") == 0
    np.testing.assert_array_equal(
        *(np.load(tmp_path / out / "probabilities" / "0.npy") for out in ("by run", "by model"))
    )
    notes = [(tmp_path / out / "predictions.json").read_bytes() for out in ("by run", "by model")]
    assert notes[0] == notes[1]
    mask = sfc.load(model).mask(read_image(photos / "0.png"))
    np.testing.assert_array_equal(mask, masks(tmp_path / "by model")["0.png"])


def test_predictions_become_coco_and_yolo(squares_run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(squares_run, photos, "--out", out) == 0
    coco, yolo = tmp_path / "coco.json", tmp_path / "yolo"
    assert main(["export", str(out), "--coco", str(coco), "--yolo", str(yolo)]) == 0
    content = json.loads(coco.read_text())
    assert {image["file_name"] for image in content["images"]} == {"0.png", "1.png", "sub/grey.png", "sub/wide.jpg"}
    areas = {name: int((mask > 0).sum()) for name, mask in masks(out).items()}
    assert sum(entry["area"] for entry in content["annotations"]) == sum(areas.values())
    assert (yolo / "labels" / "sub" / "wide.txt").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "{tmp}/none", "{photos}"], "neither a run folder (config.yaml) nor a model folder"),
        (["predict", "{run}", "{photos}", "--trained-on=irn"], "segmenter/irn/checkpoint.pt: no such checkpoint"),
        (["predict", "{run}", "{photos}", "--method=sfc-paper"], "has no method 'sfc-paper', but cam, sfc"),
        (["export", "{run}", "--coco=x.json", "--method=cam"], "--method has nothing to act on"),
        (["predict", "{run}", "{photos}", "--scales=[]"], "--scales are factors from 0.01 to 16"),
        (["predict", "{run}", "{photos}", "--pooling=most"], "--pooling is maximum or mean, not most"),
        (["predict", "{run}", "{photos}", "--logit-adjustment=-1"], "--logit-adjustment is at least 0, not -1"),
        (["predict", "{run}", "{photos}", "--logit-adjustment=.nan"], "--logit-adjustment is at least 0, not nan"),
        (["predict", "{run}", "{photos}", "--source=cams", "--logit-adjustment=0"], "are for a segmenter"),
        (["predict", "{run}", "{photos}", "--scales=[.nan]"], "--scales are factors from 0.01 to 16"),
        (["predict", "{run}", "{photos}", "--source=cams", "--mirror=true"], "are for a segmenter"),
        (["export", "{run}", "--model={tmp}/m", "--instances=true"], "--instances has nothing to act on"),
        (["export", "{run}", "--model={run}"], "holds something else than a model"),
        (["predict", "{run}", "{photos}", "--tile=3"], "--tile is at least 64"),
        (["predict", "{run}", "{photos}", "--labels=x.csv"], "x.csv: there is no such table"),
        (["export", "{run}"], "name what to write"),
        (["export", "{run}", "--coco=x.json", "--onnx=x.onnx"], "call export for each"),
        (["export", "{run}", "--coco=x.json"], "predictions.json: no such file, so this is no folder of predictions"),
        (["export", "{run}", "--voc=x.tgz"], "--voc needs --voc-root"),
    ],
)
def test_one_sentence_for_every_mistake(
    arguments: list[str],
    message: str,
    squares_run: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [each.format(tmp=tmp_path, run=squares_run, photos=photos) for each in arguments]
    out = [f"--out={tmp_path / 'out'}"] if arguments[0] == "predict" else []
    assert main([*filled, *out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["predictions", ".", ".."])
def test_predictions_in_or_above_the_folder_of_the_photographs(out: str, squares_run: Path, photos: Path) -> None:
    for _ in range(2):
        assert predict(squares_run, photos, "--out", photos / out, "--overlays=true") == 0
        assert len(masks(photos / out)) == len(read_images(photos / out / "images.csv")) == 4


def test_masks_of_somebody_else_are_not_overwritten(
    squares_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "set" / "masks" / "0.png"
    truth.parent.mkdir(parents=True)
    truth.write_bytes(b"drawn by hand")
    assert predict(squares_run, photos / "0.png", "--out", tmp_path / "set") == 2
    error = capsys.readouterr().err
    assert f"{truth.parent}: was not written by sfc predict, which would write there; choose another --out" in error
    assert [path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file()] == [b"drawn by hand"]


def test_a_full_disk_in_the_middle_of_a_large_photograph_stops_with_a_sentence(
    squares_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []

    def put(self: object, top: int, values: np.ndarray) -> None:
        rows.append(top)
        if top > 0:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sfc.predict.outputs._ArrayFile.put", put)
    for name in ("x", "y", "z"):
        shutil.copy(photos / "sub" / "wide.jpg", photos / f"{name}.jpg")
    two = [*CPU[:1], "--machine.threads=2"]
    arguments = ["predict", str(squares_run), str(photos), "--tile=64", "--probabilities=true", *two]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    assert max(rows) > 0
    made = {path.stem for path in (tmp_path / "out").rglob("*") if path.suffix in (".npy", ".png")}
    assert made == {"0", "1", "grey"}


def test_a_checkpoint_cut_in_half_is_named(
    squares_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(squares_run, tmp_path / "run"))
    path = run / "sfc" / "segmenter" / "crf" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert predict(run, photos, "--out", tmp_path / "out") == 2
    assert "segmenter/crf/checkpoint.pt: the checkpoint is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
