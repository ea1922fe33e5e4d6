"""Work on every image of a list: shared by processes, several at once in threads, unreadable ones told at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from lightning_fabric import Fabric

from sfc.data.records import Record
from sfc.engine.progress import StageProgress
from sfc.errors import DataError, SFCError

MOST_AT_ONCE = 8
"""Images in work at the same time at most, since each needs memory of its own."""


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


def work_through(
    fabric: Fabric,
    todo: Sequence[Record],
    work: Callable[[Record], None],
    title: str,
    finished: str,
    is_large: Callable[[Record], bool] | None = None,
) -> None:
    """Does `work` on this process's share of the records; an image at fault does not stop the others.

    Args:
        fabric: every process calls this with the same records.
        todo: what is left to do.
        work: called in several threads; raises DataError where the image is at fault. Any other error stops all.
        title: shown beside the progress bar.
        finished: where the results of all other images are, for the message.
        is_large: images that need so much memory that each is worked on alone, after the others and with all threads.

    Raises:
        SFCError: some images were at fault; all others are done.
    """
    share = todo[fabric.global_rank :: fabric.world_size]
    large = [record for record in share if is_large(record)] if is_large else []
    apart = {record.id for record in large}
    failures = _Failures()
    with StageProgress() as bar:
        task = bar.add_task(title, total=len(share), note="", visible=fabric.is_global_zero and len(share) > 0)

        def done() -> None:
            bar.update(task, advance=1)

        _in_threads([record for record in share if record.id not in apart], MOST_AT_ONCE, work, failures, done)
        _in_threads(large, 1, work, failures, done)
    # All processes stop together: one that ended early would take the others with it.
    count = fabric.all_reduce(torch.tensor(failures.count, device=fabric.device), reduce_op="sum")
    assert isinstance(count, torch.Tensor)
    total = int(count)
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
    records: Sequence[Record],
    most_at_once: int,
    work: Callable[[Record], None],
    failures: _Failures,
    done: Callable[[], None],
) -> None:
    if not records:
        return
    with one_image_a_thread(min(len(records), most_at_once)) as at_once, ThreadPoolExecutor(at_once) as pool:
        rest = iter(records)
        # A short queue: an interruption should not have to wait for the whole list.
        pending: set[Future[None]] = {pool.submit(work, record) for record in islice(rest, 2 * at_once)}
        while pending:
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    future.result()
                except DataError as error:
                    failures.add(error)
                done()
            pending |= {pool.submit(work, record) for record in islice(rest, len(finished))}
