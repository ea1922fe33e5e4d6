"""What every benchmark shares: where it ran, interleaved timing, peak memory, figures beside their bars."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CLOCK = os.environ.get("SFC_BENCH_CLOCK", "wall")
"""`cpu` counts this process's own seconds, for a machine that does other work too; then set OMP_WAIT_POLICY=passive,
or threads that wait for each other count as work. One thread alone would not do: torch then takes other kernels.
"""


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Args:
        name: what was measured.
        value: the number.
        unit: of the number; `x` for a ratio.
        at_most: the bar, where smaller is better.
        at_least: the bar, where larger is better.
    """

    name: str
    value: float
    unit: str = "x"
    at_most: float | None = None
    at_least: float | None = None

    @property
    def verdict(self) -> str:
        """The bar and whether it is met; empty without one."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}: {'met' if self.value <= self.at_most else 'MISSED'}"
        if self.at_least is not None:
            return f"at least {self.at_least:g}: {'met' if self.value >= self.at_least else 'MISSED'}"
        return ""


def machine() -> dict[str, Any]:
    """Processor, cores, threads, load and versions; a figure means nothing without them."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "bf16": sorted(flags & {"amx_bf16", "avx512_bf16"}),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": CLOCK,
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def has_fast_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware; elsewhere bf16 ratios say nothing."""
    return bool(machine()["bf16"])


def begin(title: str) -> dict[str, Any]:
    """Prints the header of a benchmark and returns it for `finish`."""
    header = {
        "benchmark": title,
        "command": shlex.join(["python", *sys.argv]),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
    }
    print(f"# {title}\n{header['command']}   {header['date']}")
    print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    return header


def finish(header: dict[str, Any], figures: list[Figure]) -> None:
    """Prints the figures beside their bars, then everything as one JSON line."""
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        print(f"{figure.name:<{width}}  {figure.value:>10.4g} {figure.unit:<6} {figure.verdict}".rstrip())
    rows = [{key: value for key, value in asdict(f).items() if value is not None} for f in figures]
    print(json.dumps({**header, "figures": rows}), flush=True)


def interleaved(
    variants: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1, clock_name: str = CLOCK
) -> dict[str, float]:
    """Median seconds of each variant; they take turns, so that a busy machine slows them alike."""
    clock = CLOCKS[clock_name]
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for round_index in range(warm_up + rounds):
        for name, run in variants.items():
            start = clock()
            run()
            if round_index >= warm_up:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def memory_bytes(field: str) -> int:
    """Memory of this process, from Linux: `VmRSS` now, `VmHWM` the most it ever had.

    Not ru_maxrss, which a new process inherits from the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def in_fresh_process(*arguments: str) -> dict[str, Any]:
    """Runs this script again with other arguments and returns the JSON object that it prints last."""
    result = subprocess.run([sys.executable, sys.argv[0], *arguments], stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer
