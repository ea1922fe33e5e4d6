"""The refinement stage end to end: every method, whatever stops it, and what it refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sfc.config import RunConfig, load_config
from sfc.data.images import read_mask
from sfc.data.palette import mask_palette
from sfc.errors import ConfigError, SFCError
from sfc.evaluate.scores import Scores, read_scores
from sfc.localize.store import load_cams, save_cams
from sfc.pipeline import run
from sfc.refine.crf.config import CRFConfig
from sfc.refine.methods import REFINERS

METHODS = ("none", "crf", "irn", "irn+crf")


@pytest.fixture
def finished(squares_run: Path, tmp_path: Path) -> Path:
    """A copy of the run without its masks."""
    folder = Path(shutil.copytree(squares_run, tmp_path / "run"))
    for name in ("cam", "sfc"):
        shutil.rmtree(folder / name / "masks")
    return folder


def config(recipe: Path, **refine: Any) -> RunConfig:
    base = replace(load_config([recipe]), methods=("sfc",))
    return replace(base, refine=replace(base.refine, **refine))


def refine(folder: Path, settings: RunConfig) -> None:
    run(settings, folder, ("refine",))


def masks(folder: Path, method: str) -> dict[str, np.ndarray]:
    root = folder / "sfc" / "masks" / method
    return {path.stem: np.asarray(Image.open(path)) for path in (root / "train").glob("*.png")}


def evaluated(folder: Path, settings: RunConfig) -> Scores:
    run(settings, folder, ("evaluate",))
    return next(entry for entry in read_scores(folder / "sfc" / "scores.json") if entry.split == "train")


@pytest.fixture(scope="module")
def refined(squares_run: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with the masks of every method, made one after the other in one folder; not to be changed."""
    folder = Path(shutil.copytree(squares_run, tmp_path_factory.mktemp("refined") / "run"))
    for method in METHODS:
        refine(folder, config(recipe, method=method))
    return folder


def test_every_method_writes_a_palette_mask_for_every_image(refined: Path) -> None:
    for method in METHODS:
        found = masks(refined, method)
        assert len(found) == 12
        values = set(np.unique(np.stack(list(found.values()))))
        assert values <= ({0, 1, 2, 3, 255} if method == "crf" else {0, 1, 2, 3})
        assert values > {0}
        picture = Image.open(refined / "sfc/masks" / method / "train/0.png")
        assert picture.mode == "P"
        assert picture.getpalette() == mask_palette().ravel().tolist()
    assert any((masks(refined, "irn")[name] != masks(refined, "crf")[name]).any() for name in masks(refined, "irn"))


def test_masks_hold_only_the_labels_of_their_image(refined: Path) -> None:
    for method in METHODS:
        for path in (refined / "sfc/masks" / method / "train").glob("*.png"):
            keys = load_cams(refined / "sfc/cams/train/train" / f"{path.stem}.cam")[0]
            assert set(np.unique(read_mask(path, 3))) <= {*keys.tolist(), 255}


def test_without_refinement_masks_are_the_argmax(refined: Path, recipe: Path) -> None:
    weight = config(recipe).refine.label_lambda
    for name, mask in masks(refined, "none").items():
        keys, classifier, prototype = load_cams(refined / "sfc/cams/train/train" / f"{name}.cam")
        assert np.array_equal(mask, keys[(classifier + np.float32(weight) * prototype).argmax(axis=0)])


def test_one_table_scores_every_step(refined: Path, recipe: Path) -> None:
    entry = evaluated(refined, config(recipe))
    names = [score.what for score in entry.masks]
    assert names == [
        "argmax of W + 0.7 P",
        "CRF of W + 0.7 P",
        "relation labels",
        "walk",
        "walk, CRF",
    ]
    assert [score.undecided > 0 for score in entry.masks] == [False, False, True, False, False]
    assert all(0 <= score.fixed <= 100 for score in entry.masks)


def test_what_is_done_is_not_done_again(refined: Path, recipe: Path) -> None:
    files = [path for path in (refined / "sfc").rglob("*") if path.is_file() and path.name != "scores.json"]
    before = {path: path.stat().st_mtime_ns for path in files}
    gone = refined / "sfc/masks/irn/train/3.png"
    content = gone.read_bytes()
    gone.unlink()
    refine(refined, config(recipe, method="irn"))
    assert gone.read_bytes() == content
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path != gone)


def test_a_stopped_training_ends_with_the_same_network(
    refined: Path, finished: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(recipe, method="irn")
    calls = 0
    real = torch.optim.AdamW.step

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", failing)
        with pytest.raises(KeyboardInterrupt):
            refine(finished, settings)
    assert masks(finished, "irn") == {}
    refine(finished, settings)
    ours, theirs = (torch.load(f / "sfc/relation/checkpoint.pt", weights_only=True) for f in (finished, refined))
    assert ours["model"].keys() == theirs["model"].keys()
    assert all(torch.equal(ours["model"][name], theirs["model"][name]) for name in ours["model"])
    assert all(np.array_equal(mask, masks(refined, "irn")[name]) for name, mask in masks(finished, "irn").items())


def test_what_another_method_left_does_not_stop_the_scores(refined: Path, recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(refined, tmp_path / "run"))
    chosen = config(recipe, method="crf")
    whole = [score.what for score in evaluated(folder, chosen).masks]
    (folder / "sfc/masks/irn/train/3.png").unlink()  # stopped before its end
    rest = [score.what for score in evaluated(folder, chosen).masks]
    assert [what for what in whole if what not in rest] == ["walk"]
    other = replace(chosen.refine.irn, steps=3)  # type: ignore[attr-defined]
    assert evaluated(folder, config(recipe, method="crf", irn=other)).masks[-1].what == "relation labels"
    with pytest.raises(ConfigError, match=r"refine\.irn\.steps"):
        evaluated(folder, config(recipe, method="irn", irn=other))


def test_the_walk_can_be_set_anew_without_another_network(refined: Path, recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(refined, tmp_path / "run"))
    network, before = folder / "sfc/relation/checkpoint.pt", masks(refined, "irn")
    trained = network.read_bytes()
    settings = config(recipe, method="irn")
    alone = replace(settings.refine.irn, fusion_lambda=0.0)  # type: ignore[attr-defined]
    for irn, same in (
        (replace(alone, fusion_lambda=settings.refine.walk_lambda), True),
        (alone, False),
        (replace(alone, background=3.0), False),
    ):
        shutil.rmtree(folder / "sfc/masks/irn")
        refine(folder, config(recipe, method="irn", irn=irn))
        found = masks(folder, "irn")
        assert all(np.array_equal(mask, before[name]) for name, mask in found.items()) == same
        before = before if same else found
    assert network.read_bytes() == trained


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"crf": CRFConfig(gaussian=(2.0, 3.0))}, r"refine\.crf\.gaussian was \[3\.0, 3\.0\] and is \[2\.0, 3\.0\]"),
        ({"fusion_lambda": 0.5}, r"refine\.fusion_lambda was 'released' and is 0\.5"),
    ],
)
def test_masks_of_other_settings_are_refused(refined: Path, recipe: Path, override: dict[str, Any], words: str) -> None:
    settings = config(recipe, **override)
    for stage in ("refine", "evaluate"):
        with pytest.raises(ConfigError, match=words):
            run(settings, refined, (stage,))


def test_a_torn_cam_file_is_named_and_the_others_are_done(finished: Path, recipe: Path) -> None:
    torn = finished / "sfc/cams/train/train/4.cam"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    with pytest.raises(SFCError, match=r"4\.cam.*truncated or damaged.*all other images"):
        refine(finished, config(recipe))
    assert len(masks(finished, "crf")) == 11


def test_cams_of_another_size_than_their_image_are_named(finished: Path, recipe: Path) -> None:
    path = finished / "sfc/cams/train/train/4.cam"
    keys, weight, prototype = load_cams(path)
    save_cams(path, keys, weight[:, :40], prototype[:, :40])
    with pytest.raises(SFCError, match=r"4\.cam: CAMs of \(40, 48\) pixels for an image of \(48, 48\)"):
        refine(finished, config(recipe))


def test_refinement_without_cams_says_what_to_do(finished: Path, recipe: Path) -> None:
    shutil.rmtree(finished / "sfc/cams")
    with pytest.raises(ConfigError, match=r"cams/train: no CAMs of train; run `sfc localize` first"):
        refine(finished, config(recipe))


def test_a_relation_network_of_other_settings_is_refused(refined: Path, recipe: Path) -> None:
    base = config(recipe, method="irn")
    irn = replace(base.refine.irn, radius=3)
    with pytest.raises(ConfigError, match=r"masks/irn/origin\.json was begun with other settings: refine\.irn\.radius"):
        refine(refined, config(recipe, method="irn", irn=irn))


def test_the_relation_network_starts_from_the_weights_that_the_classifier_had(
    recipe: Path, squares_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From scratch its backbone is the trained classifier's; where there were weights, a network of those."""
    asked = []

    class Asked(Exception):
        pass

    def start(job: Any) -> Any:
        asked.append(job.backbone(blank=False))
        raise Asked

    monkeypatch.setattr(REFINERS["irn"], "start", start)
    folder = Path(shutil.copytree(squares_run, tmp_path / "run"))
    with pytest.raises(Asked):
        refine(folder, config(recipe, method="irn"))
    trained = torch.load(folder / "sfc/classify/checkpoint.pt", weights_only=True)["model"]
    state = asked[0].state_dict()
    assert all(torch.equal(value, trained[f"backbone.{name}"]) for name, value in state.items())
