"""The classifier's stage: what its note holds it to, and what may change; how its weights were chosen, in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sfc.classify.network import SFCNetwork
from sfc.classify.stage import CLASSIFY, trained_classifier
from sfc.config import load_config
from sfc.data.readers.splits import read_data
from sfc.engine.checkpoint import load_checkpoint
from sfc.engine.processes import make_fabric
from sfc.engine.stage import Job, drive, refuse_changed_settings, register
from sfc.errors import ConfigError
from sfc.run.folder import SystemFolder
from sfc.run.origin import read_note

Make = Callable[..., Job]


@pytest.fixture
def job_of(recipe: Path, tmp_path: Path) -> Make:
    def make(*overrides: str) -> Job:
        config = load_config([recipe], overrides)
        job = Job(make_fabric(config.machine), config, SystemFolder(tmp_path / "system"), "test")
        register(job, (CLASSIFY,))
        job.data = read_data(config.data, tmp_path / "data", config.seed)
        return job

    return make


FREE = ("--classify.training.picture_every=1", "--data.val=", "--data.train_masks=", "--data.group_shares=[0.2,0.2]")


def test_it_trains_once_and_notes_how_the_weights_were_chosen(job_of: Make) -> None:
    job = job_of("--classify.training.select=ground_truth")
    drive(job, CLASSIFY)
    folder = job.folder.classify
    best = load_checkpoint(folder / "best.pt")
    assert job.finished("classify") == {
        "checkpoint": f"epoch {best['epoch']}, CHOSEN BY GROUND-TRUTH MASKS of 12 training images"
    }
    note = read_note(folder)
    assert note is not None
    assert note["settings"].keys() == {"data", "classify", "seed"}
    assert note["inputs"]["classes"] == ["red", "green", "blue"]
    net = trained_classifier(job)
    assert isinstance(net, SFCNetwork)
    assert not net.training
    assert trained_classifier(job) is net
    assert all(torch.equal(value, best["model"][name]) for name, value in net.state_dict().items())
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    drive(job_of("--classify.training.select=ground_truth"), CLASSIFY)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_what_may_change_and_what_may_not(job_of: Make) -> None:
    """In what a training is known by; the checkpoint itself has to agree."""
    drive(job_of(), CLASSIFY)
    for option in FREE:
        refuse_changed_settings(job_of(option), [CLASSIFY])
        job = job_of(option)
        drive(job, CLASSIFY)
        trained_classifier(job)
    for option, words in (
        ("--seed=11", "seed was 10 and is 11"),
        ("--data.limit=8", "data.limit was 0 and is 8"),
        ("--classify.bank_draws=3", "classify.bank_draws was 4 and is 3"),
        ("--classify.loss.scale.weight=0.5", "classify.loss.scale.weight was 0.8 and is 0.5"),
        ("--classify.training.epochs=3", "classify.training.epochs was 2 and is 3"),
        ("--classify.network.trained_from=2", "classify.network.trained_from was 0 and is 2"),
    ):
        with pytest.raises(ConfigError, match=f"origin.json was begun with other settings: {words}. Choose"):
            refuse_changed_settings(job_of(option), [CLASSIFY])
