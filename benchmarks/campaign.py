"""A campaign against the whole chain: kills, full disks and damaged files; its figures are in docs/reliability.md.

    python benchmarks/campaign.py kills --count 1000
    python benchmarks/campaign.py disk
    python benchmarks/campaign.py fuzz --count 10000

kills: a tiny run of every stage is killed (SIGKILL) at random moments, and the same command is given again; when it
has ended, its files are compared with those of a run that nobody touched, and it begins again. disk: the disk is full
at each write of the run in turn. fuzz: files of every kind that is read are damaged at random; each must be read or
refused in one sentence, within ten seconds and without 2 GB of memory. Linux only: each command is a fork of a process
that has everything loaded.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from damage import KINDS, SETTINGS_FILE, Kind
from sfc.config import RunConfig, load_config
from sfc.data.synthetic.benchmark import write_synthetic
from sfc.errors import SFCError
from sfc.pipeline import EVERYTHING, run
from sfc.run.folder import RunFolder

SETTINGS = """\
methods: [sfc]
data: {{root: {root}, train_masks: train_with_masks.csv, val: val.csv, classes: classes.txt}}
classify:
  network: {{backbone: compact, weights: none, trained_from: 0, centre_features: true}}
  input: {{long_side: null, crop: 48}}
  training: {{optimiser: adamw, learning_rate: 0.002, head_factor: 1, batch: 4, epochs: 2}}
localize: {{scales: [1.0]}}
refine:
  method: irn+crf
  irn: {{radius: 4, input: {{crop: 48}}, training: {{optimiser: adamw, learning_rate: 0.002, batch: 4, epochs: 1}}}}
segment:
  network: {{backbone: classifier, deeplab_v2: {{atrous_rates: [1, 2]}}}}
  input: {{crop: 48}}
  scales: [1.0]
  training: {{optimiser: adamw, learning_rate: 0.002, head_factors: [1, 1], batch: 4, epochs: 2}}
predict: {{ways: [single, multi+crf]}}
machine: {{accelerator: cpu, workers: 0, threads: 1, checkpoint_every: 2}}
"""
SEED, HEAD_IMAGES = 0, 4
"""Of the pictures, and of the most frequent class."""
COMPARED = (".pt", ".cam", ".png", ".json")
"""Suffixes of the files that must be the same; logs of interrupted trainings name the steps that were lost too."""
NOT_COMPARED = ("manifest.json", "times.json")
LONGEST_PAUSE = 2.0
"""Seconds until a kill."""
STAGES = EVERYTHING[:-1]
"""Of a run that is killed: the page at its end, which is drawn anew every time, would get most of the kills."""
FEWER = 3
"""Exit code of a run with fewer writes than were to be counted."""
FUZZ_SECONDS, FUZZ_BYTES = 10, 2 * 2**30
PORTION = 100
"""Damaged files that one process reads."""


def write_data(root: Path) -> Path:
    """A few pictures of the built-in benchmark; returns the settings."""
    write_synthetic(root, SEED, HEAD_IMAGES)
    settings = root / SETTINGS_FILE
    settings.write_text(SETTINGS.format(root=root))
    return settings


def in_a_fork(said: Path, work: Callable[..., Any], *arguments: Any) -> int:
    """Does the work in a child process, which writes what it says into a file; returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        work(*arguments)
        code = 0
    except SFCError as error:
        print(f"sfc: {error}", file=sys.stderr)
        code = 2
    except BaseException:  # noqa: BLE001 - what the campaign is looking for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    """Waits; the exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def state(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that must be the same."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.suffix in COMPARED and path.name not in NOT_COMPARED and "report" not in path.parts
    }


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Files that differ, or that one of the two lacks."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def undisturbed(config: RunConfig, place: Path) -> Path:
    """A run that nobody touches."""
    folder = place / "undisturbed"
    if ended(in_a_fork(place / "said", run, config, folder)) != 0:
        raise SystemExit((place / "said").read_text())
    return folder


def kills(config: RunConfig, place: Path, count: int) -> int:
    """Kills runs at random moments; the number of faults."""
    expected, chance = state(undisturbed(config, place)), np.random.default_rng(0)
    folder, said, done, finished, faults = place / "killed", place / "said", 0, 0, 0
    stages: Counter[str] = Counter()
    while done < count:
        child = in_a_fork(said, run, config, folder, STAGES)
        time.sleep(chance.uniform(0, LONGEST_PAUSE))
        pid, status = os.waitpid(child, os.WNOHANG)
        if not pid:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            done += 1
            lines = [line for line in said.read_text().splitlines() if line.startswith("SFC: ")]
            stages[lines[-1].split(": ")[1].split()[0] if lines else "start"] += 1
            continue
        code = os.waitstatus_to_exitcode(status)
        wrong = differences(state(folder), expected) if code == 0 else ["the command failed"]
        if wrong:
            faults += 1
            print(f"after {done} kills: exit code {code}, {wrong[:5]}\n{said.read_text()[-2000:]}")
        finished += 1
        shutil.rmtree(folder)
    print(f"{done} kills, {finished} runs ended among them, {faults} of them wrong; last lines: {dict(stages)}")
    return faults


def run_on_a_disk_that_is_full(config: RunConfig, folder: Path, at: int) -> None:
    """A run whose so many-th file cannot be written to its end."""
    real, writes = os.fsync, 0

    def full(descriptor: Any) -> None:
        nonlocal writes
        writes += 1
        if writes == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    os.fsync = full  # type: ignore[assignment]
    run(config, folder)
    if writes < at:
        os._exit(FEWER)


def disk(config: RunConfig, place: Path, every: int) -> int:
    """Lets each write fail once, as on a full disk; the number of faults."""
    expected, faults, number, spared = state(undisturbed(config, place)), 0, 1, 0
    folder, said = place / "full", place / "said"
    while (code := ended(in_a_fork(said, run_on_a_disk_that_is_full, config, folder, number))) != FEWER:
        text = said.read_text()
        wrong = differences(state(folder), expected) if code == 0 else []
        if code == 0 and not wrong:
            spared += 1  # a file that nothing depends on, such as times.json
        elif code != 2 or "Traceback" in text or "No space left" not in text:
            faults += 1
            print(f"write {number}: exit code {code}, {wrong[:5]}\n{text[-2000:]}")
        if number % every == 0:
            before = state(folder)
            code = ended(in_a_fork(said, run, config, folder))
            after = state(folder)
            lost = [name for name in before if name.endswith((".cam", ".png")) and before[name] != after.get(name)]
            if code != 0 or differences(after, expected) or lost:
                faults += 1
                print(f"write {number}, then again: exit code {code}, {differences(after, expected)[:5]}, lost {lost}")
        shutil.rmtree(folder, ignore_errors=True)
        number += 1
    print(f"{number - 1} writes, each of which failed once, {spared} of them without harm; {faults} faults")
    return faults


def fuzz(config: RunConfig, place: Path, count: int) -> int:
    """Damages files at random and reads them; the number of faults."""
    system, faults = RunFolder(undisturbed(config, place)).system("sfc"), 0
    words, said, share = place / "words", place / "said", max(1, count // len(KINDS))
    total = 0
    for name, kind in KINDS.items():
        good = kind.prepare(place / name.replace(" ", "_"), Path(config.data.root), system)
        if ended(in_a_fork(said, kind.read, good)) != 0:  # or every refusal would be right
            raise SystemExit(f"{name}: the undamaged file is not read: {said.read_text()}")
        found: Counter[str] = Counter()
        for first in range(0, share, PORTION):
            words.write_text("")
            if ended(in_a_fork(said, read_damaged, kind, good, range(first, min(first + PORTION, share)), words)):
                faults += 1
                print(f"{name}: {said.read_text()[-2000:]}")
            found.update(words.read_text().split())
        total += found.total()
        print(f"{name:16} {found.total():6}: read {found['read']:6}, refused {found['refused']:6}")
    print(f"{total} damaged files, {faults} faults")
    return faults


def read_damaged(kind: Kind, good: Path, seeds: range, words: Path) -> None:
    """Reads damaged copies of a file, within limits of time and memory; notes what came of each."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + FUZZ_BYTES, used + FUZZ_BYTES))
    content = good.read_bytes()
    for seed in seeds:
        good.write_bytes(kind.damaged(content, seed))
        signal.alarm(FUZZ_SECONDS)
        print(f"seed {seed}", flush=True)
        try:
            kind.read(good)
            outcome = "read"
        except SFCError as error:
            if "\n" in str(error):
                raise ValueError("more than a line") from error
            outcome = "refused"
        finally:
            signal.alarm(0)
            good.write_bytes(content)
        with words.open("a") as file:
            file.write(f"{outcome} ")


def main() -> int:
    """Runs a part of the campaign; 1 if it found a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["kills", "disk", "fuzz"])
    parser.add_argument("--count", type=int, default=1000, help="of kills, or of damaged files")
    parser.add_argument("--every", type=int, default=1, help="disk: after each how many-th failure the run goes on")
    given = parser.parse_args()
    torch.set_num_threads(1)  # threads of a pool do not come along into a fork, which then waits for them
    with tempfile.TemporaryDirectory(prefix="sfc-campaign-") as name:
        place = Path(name)
        config = load_config([write_data(place / "data")])
        start = time.perf_counter()
        if given.part == "kills":
            faults = kills(config, place, given.count)
        elif given.part == "disk":
            faults = disk(config, place, given.every)
        else:
            faults = fuzz(config, place, given.count)
        print(f"{time.perf_counter() - start:.0f} s")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
