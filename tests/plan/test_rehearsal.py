"""A rehearsal is short: a few steps and photographs, whatever the threads of the machine and however small a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sfc.plan.rehearsal
from sfc.config import RunConfig, load_config
from sfc.data.readers.splits import Data, read_data
from sfc.engine.order import steps_per_epoch
from sfc.plan.rehearsal import STEPS, _a_few, rehearse


@pytest.mark.parametrize(("threads", "photographs"), [(1, 12), (8, 24), (64, 24)])
@pytest.mark.parametrize(("batch", "most"), [(16, STEPS), (4, 3 * STEPS), (1, 2 * 24)])
def test_a_few_steps_and_photographs(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    photographs: int,
    batch: int,
    most: int,
) -> None:
    given = load_config([recipe], [f"--classify.training.batch={batch}", f"--segment.training.batch={batch}"])
    data = read_data(given.data, tmp_path)
    many = [replace(record, id=f"{record.id}-{copy}") for copy in range(30) for record in data.train.records]
    seen: list[tuple[RunConfig, Data]] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(sfc.plan.rehearsal, "drive", lambda job, _: seen.append((job.config, job.data)))
    monkeypatch.setattr(sfc.plan.rehearsal, "_costs", lambda *_: None)
    rehearse(given, replace(data, train=replace(data.train, records=tuple(many))))
    config, few = seen[0]
    assert len(few.train) == photographs
    for training in (config.classify.training, config.segment.training):
        assert training.epochs > 1
        assert STEPS <= training.epochs * steps_per_epoch(len(few.train), training) <= most


@pytest.mark.parametrize("masks", [1, 5, 200])
def test_scored_photographs_are_among_the_few(recipe: Path, tmp_path: Path, masks: int) -> None:
    """However few have a mask, the segmenter may be one that learns from those, and scores take time."""
    data = read_data(load_config([recipe]).data, tmp_path)
    assert data.scoring is not None
    many = [replace(record, id=f"{record.id}-{copy}") for copy in range(30) for record in data.train.records]
    scored = [replace(data.scoring.records[0], id=record.id) for record in many if record.labels][
        7 :: max(1, 300 // masks)
    ]
    whole = replace(data, train=replace(data.train, records=tuple(many)))
    few = _a_few(replace(whole, scoring=replace(data.scoring, records=tuple(scored[:masks]))), 12)
    assert few.scoring is not None
    assert len(few.scoring) == min(masks, 6)
    assert len({record.id for record in few.train.records}) == len(few.train) == 12
    assert {record.id for record in few.scoring.records} <= {record.id for record in few.train.records}
