"""Work on every image: each once, several at once, in shares; what is at fault is named and stops nothing else."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from sfc.data.records import Record
from sfc.engine.image_work import one_image_a_thread, unfinished, work_through
from sfc.errors import DataError, SFCError

RECORDS = [Record(f"{index:02d}", Path(f"{index}.png"), ()) for index in range(20)]


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def test_every_image_is_worked_on_once(fabric: Fabric) -> None:
    done: list[str] = []
    work_through(fabric, RECORDS, lambda record: done.append(record.id), "work", "done")
    assert sorted(done) == [record.id for record in RECORDS]


def test_unfinished_ones_keep_their_order_and_nobody_works_before_everybody_has_looked(
    fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    met: list[int] = []
    monkeypatch.setattr(fabric, "barrier", lambda: met.append(len(looked)))

    def is_finished(record: Record) -> bool:
        looked.append(record.id)
        return int(record.id) % 3 == 0

    todo = unfinished(fabric, RECORDS, is_finished)
    assert todo == [record for record in RECORDS if int(record.id) % 3]
    assert met == [len(RECORDS)]


def test_two_images_are_in_work_at_once(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    meeting = threading.Barrier(2)
    work_through(fabric, RECORDS, lambda _: meeting.wait(timeout=30) and None, "work", "done")
    assert not meeting.broken


def test_faults_are_counted_and_all_others_done(fabric: Fabric) -> None:
    done: list[str] = []

    def work(record: Record) -> None:
        if record.id in ("03", "17"):
            raise DataError(record.image, "is torn")
        done.append(record.id)

    with pytest.raises(SFCError, match=r"^(3|17)\.png: is torn and 1 more images cannot be used; the others are here$"):
        work_through(fabric, RECORDS, work, "work", "the others are here")
    assert len(done) == len(RECORDS) - 2


def test_any_other_error_stops_the_work(fabric: Fabric) -> None:
    done: list[str] = []

    def work(record: Record) -> None:
        done.append(record.id)
        raise SFCError("the disk is full")

    with pytest.raises(SFCError, match="the disk is full"):
        work_through(fabric, RECORDS, work, "work", "done")
    assert len(done) < len(RECORDS)


def test_large_images_come_last_and_alone(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    running: list[str] = []
    seen: list[tuple[str, int]] = []

    def work(record: Record) -> None:
        running.append(record.id)
        time.sleep(0.01)
        seen.append((record.id, len(running)))
        running.remove(record.id)

    large = {RECORDS[0].id, RECORDS[2].id}
    work_through(fabric, RECORDS, work, "work", "done", lambda record: record.id in large)
    assert {name for name, _ in seen} == {record.id for record in RECORDS}
    assert {name for name, _ in seen[-2:]} == large
    assert [together for _, together in seen[-2:]] == [1, 1]


def test_threads_are_shared_out_and_given_back() -> None:
    before = torch.get_num_threads()
    with one_image_a_thread(100) as at_once:
        assert at_once * torch.get_num_threads() <= before
    assert torch.get_num_threads() == before
