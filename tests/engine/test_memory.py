"""Memory kept during a training: kept while it runs, and given back after it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import psutil, torch
from sfc.engine.memory import memory_kept

def used():
    return psutil.Process().memory_info().rss // 2**20

def use():
    torch.ones(50 * 2**20)  # 200 MiB

before = used()
use()
print(used() - before)
with memory_kept():
    use()
    print(used() - before)
print(used() - before)
use()
print(used() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_it_is_kept_and_given_back() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    without, kept, after, later = map(int, result.stdout.split())
    assert kept >= 190
    assert max(without, after, later) <= 40


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from sfc.engine import memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("there is no such library"))
    with memory.memory_kept():
        pass
