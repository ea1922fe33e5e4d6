"""Work on every image of a list: shared by processes, several at once in threads, unreadable ones told at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import psutil
import torch
from lightning_fabric import Fabric

from sfc.data.images import image_size, shrunk_size
from sfc.data.records import Record, evenly
from sfc.engine.progress import StageProgress
from sfc.errors import DataError, SFCError

MOST_AT_ONCE = 8
"""Images in work at the same time at most, since each needs memory of its own."""
SHARE = 0.5
"""Of the free memory that images in work may take."""
BYTES_A_PIXEL = 900
"""That a network's answer to an image takes, at the largest scale: ResNet-50 on photographs of 3 and 12 megapixels took
870 and 540, an EfficientNet-Lite0 less."""
MOST_TOGETHER = 8
"""Images in a batch at most."""
LOOKED_AT = 200
"""Images whose size is looked up to know what the largest needs."""
Batch = Sequence[Record]


def memory_of_each(records: Sequence[Record], largest_scale: float) -> float:
    """Bytes that one of some images takes in a network, the largest of those that are looked at.

    Args:
        records: images; those that cannot be read count nothing.
        largest_scale: at which the network sees them, relative to the size that they are worked on at.
    """
    pixels = 0
    for record in evenly(records, LOOKED_AT):
        try:
            height, width = shrunk_size(image_size(record.image), record.longest)
        except DataError:
            continue
        pixels = max(pixels, height * width)
    return BYTES_A_PIXEL * pixels * largest_scale**2


def memory_of_each_batch(batches: Sequence[Batch], pixels: int, largest_scale: float) -> float:
    """The same of batches that `of_one_size` made with so many `pixels` together."""
    alone = memory_of_each([batch[0] for batch in batches], largest_scale)
    together = BYTES_A_PIXEL * pixels * largest_scale**2
    return max(alone, together) if any(len(batch) > 1 for batch in batches) else alone


def fitting(fabric: Fabric, bytes_each: float) -> int:
    """How many images may be in work at the same time, by the memory that is free now; at least one.

    Processes share the host's; where each works on a GPU of its own, the image has to fit there too.
    """
    if not bytes_each:
        return MOST_AT_ONCE
    free = psutil.virtual_memory().available / fabric.world_size
    if fabric.device.type == "cuda":
        # What torch keeps for later, after a training say, is free too.
        kept = torch.cuda.memory_reserved(fabric.device) - torch.cuda.memory_allocated(fabric.device)
        free = min(free, torch.cuda.mem_get_info(fabric.device)[0] + kept)
    return max(1, min(MOST_AT_ONCE, int(SHARE * free / bytes_each)))


@contextmanager
def one_image_a_thread(images: int) -> Iterator[int]:
    """Shares torch's CPU threads out among so many images; gives how many of them to work on at once.

    Threads on several images hardly wait for each other; threads inside one small image mostly do.
    """
    total = torch.get_num_threads()
    at_once = max(1, min(total, images, MOST_AT_ONCE))
    torch.set_num_threads(max(1, total // at_once))
    try:
        yield at_once
    finally:
        torch.set_num_threads(total)


def unfinished(fabric: Fabric, records: Sequence[Record], finished: Callable[[Record], bool]) -> list[Record]:
    """The records whose files do not exist yet, the same ones on every process; every process calls this."""
    todo = [record for record in records if not finished(record)]
    # Nobody writes before everybody has looked.
    fabric.barrier()
    return todo


def of_one_size(records: Sequence[Record], pixels: int) -> list[list[Record]]:
    """Records in batches whose images have the same size when they are read; those that cannot be read are alone.

    Args:
        records: images, each of which is in one batch.
        pixels: that the images of a batch have together at most, but for a batch of one.
    """
    batches: list[list[Record]] = []
    open_ones: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        try:
            size = shrunk_size(image_size(record.image), record.longest)
        except DataError:
            batches.append([record])
            continue
        batch = open_ones.get(size)
        if batch is None or len(batch) == MOST_TOGETHER or (len(batch) + 1) * size[0] * size[1] > pixels:
            batch = open_ones[size] = []
            batches.append(batch)
        batch.append(record)
    return batches


def one_by_one(
    records: Sequence[Record], work: Callable[[Record], None]
) -> tuple[list[Batch], Callable[[Batch], None]]:
    """Records as batches of one, and their work as that of a batch: the second and third argument of `work_through`."""
    return [[record] for record in records], lambda batch: work(batch[0])


def work_through(
    fabric: Fabric,
    todo: Sequence[Batch],
    work: Callable[[Batch], None],
    title: str,
    finished: str,
    is_large: Callable[[Record], bool] | None = None,
    bytes_each: float = 0,
) -> None:
    """Does `work` on this process's share of the batches; an image at fault does not stop the others.

    Args:
        fabric: every process calls this with the same batches.
        todo: what is left to do.
        work: called in several threads; raises DataError where an image is at fault, before it has done anything: each
            of the batch is then done alone. Any other error stops all.
        title: shown beside the progress bar.
        finished: where the results of all other images are, for the message.
        is_large: of a batch's first image, whether it needs so much memory that the batch is worked on alone, after the
            others and with all threads.
        bytes_each: of memory that one of the other batches takes; no more of them are in work than fit. 0: not known.

    Raises:
        SFCError: some images were at fault; all others are done.
    """
    share = todo[fabric.global_rank :: fabric.world_size]
    large = [batch for batch in share if is_large(batch[0])] if is_large else []
    apart = {batch[0].id for batch in large}
    failures = _Failures()
    with StageProgress() as bar:
        count = sum(map(len, share))
        task = bar.add_task(title, total=count, note="", visible=fabric.is_global_zero and count > 0)

        def done(images: int) -> None:
            bar.update(task, advance=images)

        others = [batch for batch in share if batch[0].id not in apart]
        _in_threads(others, fitting(fabric, bytes_each), work, failures, done)
        _in_threads(large, 1, work, failures, done)
    # All processes stop together: one that ended early would take the others with it.
    counted = fabric.all_reduce(torch.tensor(failures.count, device=fabric.device), reduce_op="sum")
    assert isinstance(counted, torch.Tensor)
    total = int(counted)
    if total:
        first = failures.first or "another process names an image that cannot be used"
        more = f" and {total - 1} more images cannot be used" if total > 1 else ""
        raise SFCError(f"{first}{more}; {finished}")


@dataclass
class _Failures:
    """Images at fault, in words: an exception would keep the pixels of its image in memory."""

    count: int = 0
    first: str = ""

    def add(self, error: DataError) -> None:
        self.first = self.first or str(error)
        self.count += 1


def _in_threads(
    batches: Sequence[Batch],
    most_at_once: int,
    work: Callable[[Batch], None],
    failures: _Failures,
    done: Callable[[int], None],
) -> None:
    if not batches:
        return
    with one_image_a_thread(min(len(batches), most_at_once)) as at_once, ThreadPoolExecutor(at_once) as pool:
        rest = iter(batches)
        # A short queue: an interruption should not have to wait for the whole list.
        pending: dict[Future[None], Batch] = {}

        def start(more: Iterable[Batch]) -> None:
            pending.update({pool.submit(work, batch): batch for batch in more})

        start(islice(rest, 2 * at_once))
        while pending:
            finished, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                batch = pending.pop(future)
                try:
                    future.result()
                except DataError as error:
                    if len(batch) > 1:
                        start([record] for record in batch)
                        continue
                    failures.add(error)
                done(len(batch))
            start(islice(rest, max(0, 2 * at_once - len(pending))))
