"""docs/extending.md: exactly the files and lines of the page, added to a copy of the package, do what it says."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sfc

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_LINES = 30

REST = """
methods: [sfc]
seed: 0
classify:
  network: {backbone: compact, weights: none, trained_from: 0, centre_features: true}
  input: {long_side: null, crop: 48}
  training: {optimiser: adamw, learning_rate: 0.002, head_factor: 1, batch: 4, epochs: 1}
localize: {scales: [1.0]}
segment:
  input: {crop: 48}
  scales: [1.0]
  training: {optimiser: adamw, learning_rate: 0.002, batch: 4, epochs: 1}
predict: {ways: [single]}
machine: {accelerator: cpu, workers: 0, threads: 1}
"""


def blocks() -> list[tuple[str, list[str], str]]:
    """Language, what stands behind it, and text of every block of the page."""
    return [
        (language, names.split(), text) for language, names, text in BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    ]


def new_files() -> dict[str, str]:
    return {names[0]: text for language, names, text in blocks() if language == "python" and len(names) == 1}


def entries() -> dict[tuple[str, str], str]:
    return {(names[0], names[1]): text for _, names, text in blocks() if len(names) == 2}


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the page's four parts in it; the folder that holds it."""
    root = tmp_path_factory.mktemp("extended") / "src"
    shutil.copytree(Path(sfc.__file__).parent, root / "sfc", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in new_files().items():
        path = root / Path(name).relative_to("src")
        assert not path.exists()
        path.write_text(text)
    for (name, table), text in entries().items():
        path = root / Path(name).relative_to("src")
        before = path.read_text()
        lines = text.splitlines()
        head = next(line for line in before.splitlines() if line.startswith(f"{table}: dict["))
        start = before.index(head)
        end = before.index("\n}\n", start)
        with_entry = before[:end] + "\n" + "\n".join(lines[1:]) + before[end:]
        first = with_entry.index("\nfrom sfc") + 1
        path.write_text(with_entry[:first] + lines[0] + "\n" + with_entry[first:])
    return root


def call(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
    command = [sys.executable, "-m", "sfc", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


def test_each_toy_is_short_and_edits_one_table() -> None:
    files, tables = new_files(), entries()
    assert len(files) == len(tables) == 4
    assert {table for _, table in tables} == {"READERS", "LOSSES", "REFINERS", "ARCHITECTURES"}
    for name, text in files.items():
        code = [line for line in text.splitlines() if line.strip()]
        imports_and_text = [line for line in code if line.startswith(("from ", "import ", '"""'))]
        assert len(code) - len(imports_and_text) <= MOST_LINES, name
    for text in tables.values():
        assert len(text.splitlines()) == 2


def test_the_parts_run_from_tags_to_masks_of_a_segmenter(extended: Path, squares: Path, tmp_path: Path) -> None:
    with (squares / "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    data = Path(shutil.copytree(squares, tmp_path / "data"))
    text = "\n".join(f"{row['image']}: {row['labels'].replace(';', ' ')}" for row in rows)
    (data / "train.txt").write_text(text + "\n")
    (shown,) = [text for language, _, text in blocks() if language == "yaml"]
    (tmp_path / "mine.yaml").write_text(shown)
    (tmp_path / "rest.yaml").write_text(REST)
    recipes = ["--config", tmp_path / "rest.yaml", "--config", tmp_path / "mine.yaml"]
    run = tmp_path / "run"
    done = call(extended, "run", *recipes, "--data.root", data, "--run", run)
    assert done.returncode == 0, done.stderr[-3000:]

    log = list(csv.DictReader((run / "sfc/classify/log.csv").read_text().splitlines()))
    assert all(float(row["area"]) > 0 for row in log)
    note = json.loads((run / "sfc/masks/majority/origin.json").read_text())
    assert note["settings"]["refine"]["majority"] == {"size": 3}
    masks = sorted((run / "sfc/masks/majority").rglob("*.png"))
    assert len(masks) == len(rows)
    with Image.open(masks[0]) as mask:
        assert set(np.unique(np.asarray(mask))) <= {0, 1, 2, 3}
    segmenter = json.loads((run / "sfc/segmenter/majority/origin.json").read_text())
    assert segmenter["settings"]["segment"]["network"]["tiny"] == {"width": 8}
    assert segmenter["finished"] is not None
    # Its settings are known on the command line, limits included.
    refused = call(extended, "run", *recipes, "--refine.majority.size", "0", "--run", run)
    assert refused.returncode == 2
    assert "refine.majority.size must be at least 1, not 0" in refused.stderr
    assert "--segment.network.tiny.width" in call(extended, "run", "--help").stdout


def test_without_the_entry_the_part_is_unknown(tmp_path: Path) -> None:
    (shown,) = [text for language, _, text in blocks() if language == "yaml"]
    (tmp_path / "mine.yaml").write_text(shown)
    refused = call(Path(sfc.__file__).parents[1], "run", "--config", tmp_path / "mine.yaml", "--run", tmp_path / "run")
    assert refused.returncode == 2
    assert "mine.yaml: data.format must be table or voc or coco or folders or synthetic, not lines" in refused.stderr
