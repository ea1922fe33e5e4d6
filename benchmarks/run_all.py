"""Runs every benchmark of this folder in its own process and ends with all figures that have a bar.

Exits with 1 if a benchmark failed to run. A missed bar is shown, not an error: on a busy machine times are noisy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from measure import Figure

HERE = Path(__file__).parent
HELPERS = {"damage.py", "measure.py", "yardstick.py", "run_all.py"}
NEED_RUNS = {
    *("campaign.py", "doubt.py", "few_photographs.py", "photograph_sizes.py", "public_photographs.py", "signs.py"),
    *("voc_animals.py", "walk_settings.py"),
}
"""They look at data or finished runs, or have parts, which they take as arguments."""


def run(script: Path) -> tuple[list[Figure], bool]:
    """Runs one benchmark, its output passed on as it comes; its figures, and whether it ended well."""
    process = subprocess.Popen([sys.executable, "-u", str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        last = line
        if not line.startswith("{"):
            print(line, end="", flush=True)
    succeeded = process.wait() == 0
    figures = json.loads(last)["figures"] if succeeded and last.startswith("{") else []
    return [Figure(**figure) for figure in figures], succeeded


def main() -> int:
    scripts = {path.stem: path for path in sorted(HERE.glob("*.py")) if path.name not in HELPERS | NEED_RUNS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which to run (default: all): {', '.join(scripts)}")
    names = parser.parse_args().names or list(scripts)
    failed, summary = [name for name in names if name not in scripts], []
    for script in [scripts[name] for name in names if name in scripts]:
        figures, succeeded = run(script)
        print(flush=True)
        failed += [] if succeeded else [script.stem]
        summary += [(script.stem, figure) for figure in figures if figure.verdict]
    print("# all bars")
    for stem, figure in summary:
        print(f"{stem:<16} {figure.name:<58} {figure.value:>10.4g} {figure.unit:<4} {figure.verdict}")
    for name in failed:
        print(f"{name} failed to run", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
