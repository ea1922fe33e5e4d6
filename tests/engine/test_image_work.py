"""Work on every image: each once, several at once, in shares; what is at fault is named and stops nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from sfc.data.records import Record
from sfc.engine import image_work
from sfc.engine.image_work import (
    of_one_size,
    one_by_one,
    one_image_a_thread,
    unfinished,
    work_through,
)
from sfc.errors import DataError, SFCError

RECORDS = [Record(f"{index:02d}", Path(f"{index}.png"), ()) for index in range(20)]


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def test_every_image_is_worked_on_once(fabric: Fabric) -> None:
    done: list[str] = []
    work_through(fabric, *one_by_one(RECORDS, lambda record: done.append(record.id)), "work", "done")
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
    work_through(fabric, *one_by_one(RECORDS, lambda _: meeting.wait(timeout=30) and None), "work", "done")
    assert not meeting.broken


def test_faults_are_counted_and_all_others_done(fabric: Fabric) -> None:
    done: list[str] = []

    def work(record: Record) -> None:
        if record.id in ("03", "17"):
            raise DataError(record.image, "is torn")
        done.append(record.id)

    with pytest.raises(SFCError, match=r"^(3|17)\.png: is torn and 1 more images cannot be used; the others are here$"):
        work_through(fabric, *one_by_one(RECORDS, work), "work", "the others are here")
    assert len(done) == len(RECORDS) - 2


def test_any_other_error_stops_the_work(fabric: Fabric) -> None:
    done: list[str] = []

    def work(record: Record) -> None:
        done.append(record.id)
        raise SFCError("the disk is full")

    with pytest.raises(SFCError, match="the disk is full"):
        work_through(fabric, *one_by_one(RECORDS, work), "work", "done")
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
    work_through(fabric, *one_by_one(RECORDS, work), "work", "done", lambda record: record.id in large)
    assert {name for name, _ in seen} == {record.id for record in RECORDS}
    assert {name for name, _ in seen[-2:]} == large
    assert [together for _, together in seen[-2:]] == [1, 1]


def test_threads_are_shared_out_and_given_back() -> None:
    before = torch.get_num_threads()
    with one_image_a_thread(100) as at_once:
        assert at_once * torch.get_num_threads() <= before
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("free", "expected"), [(64, 8), (8, 6), (2, 1), (0.1, 1)])
def test_no_more_images_are_in_work_than_fit(
    free: float, expected: int, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photographs of 500 x 375 at twice their size, as the recipe for VOC has them."""
    memory = SimpleNamespace(available=int(free * 2**30))
    monkeypatch.setattr(image_work.psutil, "virtual_memory", lambda: memory)
    assert image_work.fitting(fabric, image_work.BYTES_A_PIXEL * 500 * 375 * 4) == expected
    assert image_work.fitting(fabric, 0) == image_work.MOST_AT_ONCE


@pytest.mark.parametrize(
    ("host", "gpu", "kept", "processes", "expected"),
    [(64, 64, 0, 1, 8), (64, 8, 0, 1, 6), (64, 2, 6, 1, 6), (8, 64, 0, 1, 6), (64, 8, 0, 8, 6), (64, 64, 0, 8, 6)],
)
def test_images_fit_into_the_memory_of_a_gpu_too(
    host: int, gpu: int, kept: int, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's is for all processes; `kept` are what torch has on the GPU without using it."""
    fabric: Any = SimpleNamespace(device=torch.device("cuda", 0), world_size=processes)
    memory = SimpleNamespace(available=host * 2**30)
    monkeypatch.setattr(image_work.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gpu * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: (kept + 1) * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2**30)
    assert image_work.fitting(fabric, image_work.BYTES_A_PIXEL * 500 * 375 * 4) == expected


def test_the_largest_image_says_what_is_needed(tmp_path: Path) -> None:
    records = []
    for name, size in (("a", (30, 20)), ("b", (400, 100)), ("c", (50, 50))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
        records.append(Record(name, tmp_path / f"{name}.png", ()))
    gone = Record("gone", tmp_path / "gone.png", ())
    assert image_work.memory_of_each([*records, gone], 2) == image_work.BYTES_A_PIXEL * 400 * 100 * 4
    shrunk = [replace(record, longest=100) for record in records]
    assert image_work.memory_of_each(shrunk, 1) == image_work.BYTES_A_PIXEL * 50 * 50
    assert image_work.memory_of_each([gone], 1) == 0


def drawn(folder: Path, *sizes: tuple[int, int]) -> list[Record]:
    folder.mkdir()
    records = []
    for index, size in enumerate(sizes):
        path = folder / f"{index:02d}.png"
        Image.new("RGB", size).save(path)
        records.append(Record(f"{index:02d}", path, ()))
    return records


def test_images_of_one_size_are_batches(tmp_path: Path) -> None:
    records = drawn(tmp_path / "a", *[(8, 4), (4, 8), (8, 4), (8, 4), (40, 40), (4, 8), (16, 8), (40, 40)])
    torn = Record("torn", tmp_path / "torn.png", ())
    shrunk = [replace(records[6], longest=8), *drawn(tmp_path / "b", *[(8, 4)] * 20)]

    def ids(batches: list[list[Record]]) -> list[list[str]]:
        return [[record.id for record in batch] for batch in batches]

    found = ids(of_one_size([*records, torn], 64))
    assert found == [["00", "02"], ["01", "05"], ["03"], ["04"], ["06"], ["07"], ["torn"]]
    assert ids(of_one_size([*records, torn], 96))[0] == ["00", "02", "03"]
    assert [len(batch) for batch in of_one_size(shrunk, 10**6)] == [8, 8, 5]  # the sizes that are read
    assert image_work.memory_of_each_batch(of_one_size(records, 5000), 5000, 2) == image_work.BYTES_A_PIXEL * 5000 * 4
    assert image_work.memory_of_each_batch(of_one_size(records, 1), 1, 2) == image_work.BYTES_A_PIXEL * 40 * 40 * 4
    assert image_work.memory_of_each_batch([], 5000, 2) == 0


def test_a_batch_with_a_fault_is_done_one_by_one(fabric: Fabric) -> None:
    done: list[str] = []
    tried: list[int] = []

    def work(batch: Sequence[Record]) -> None:
        tried.append(len(batch))
        for record in batch:
            if record.id in ("03", "17"):
                raise DataError(record.image, "is torn")
        done.extend(record.id for record in batch)

    batches = [RECORDS[i : i + 4] for i in range(0, 20, 4)]
    with pytest.raises(SFCError, match=r"^(3|17)\.png: is torn and 1 more images cannot be used; the others are here$"):
        work_through(fabric, batches, work, "work", "the others are here")
    assert sorted(done) == [record.id for record in RECORDS if record.id not in ("03", "17")]
    assert sorted(tried) == [1] * 8 + [4] * 5
