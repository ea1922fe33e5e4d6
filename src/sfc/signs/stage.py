"""`sfc judge`: are the CAMs of a run sound? From tags, photographs and maps alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sfc.engine.stage import Job, Stage

if TYPE_CHECKING:
    from sfc.signs.verdict import Verdict


def _judge(job: Job) -> None:
    """Looks at enough photographs of every class, and says what it saw; only the first process works."""
    if not job.fabric.is_global_zero:
        return
    from sfc.engine.progress import StageProgress
    from sfc.run.folder import RunFolder
    from sfc.signs.system import chosen_photographs, class_signs
    from sfc.signs.verdict import judged, read_verdict, write_verdict

    dataset = job.data.split("train")
    records = chosen_photographs(dataset.records, len(dataset.classes))
    with StageProgress() as bar:
        task = bar.add_task(f"{job.title}: signs of the maps", total=len(records), note="")
        signs = class_signs(records, dataset.classes, job.folder.cams("train"), lambda: bar.update(task, advance=1))
    baseline: Verdict | None = None
    first = RunFolder(job.folder.root.parent).system(job.config.methods[0])
    if first != job.folder and first.signs.exists():
        baseline = read_verdict(first.signs)
    verdict = judged(signs, baseline)
    write_verdict(job.folder.signs, verdict)
    sys.stderr.write(f"{job.title}: {verdict.words}\n")


JUDGE = Stage(
    name="judge",
    text="are the CAMs of a run sound? from tags and maps alone",
    sections=(),
    reads=lambda _: ("cams/train",),
    work=_judge,
)
