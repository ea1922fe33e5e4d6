"""The import rule of docs/architecture.md, held against every import of the package."""

from __future__ import annotations

import ast
import graphlib
from collections import defaultdict
from pathlib import Path

import pytest

import sfc

ROOT = Path(sfc.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
MOST_LOOSE, MOST_IN_A_ROOM, MOST_LINES = 8, 12, 320


def files() -> dict[str, Path]:
    """Every module by its dotted name."""
    modules = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports, wherever in it, for types alone included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sfc":
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                found.add(inner if inner in modules else node.module)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.split(".")[0] == "sfc"}
    return found


def rule() -> dict[str, set[str]]:
    """The table: what each room may import."""
    table = PAGE.read_text(encoding="utf-8").partition("<!-- imports -->")[2].partition("\n\n")[0]
    rows = [row.strip("| ").split("|") for row in table.strip().splitlines()[2:]]
    return {
        row[0].strip(" `"): {name.strip(" `") for name in (row[1] if len(row) > 1 else "").split(",")} - {""}
        for row in rows
    }


def room(module: str, rooms: dict[str, set[str]]) -> str:
    """The room that a module stands in; the package itself and its entry point are none."""
    parts = module.split(".")[1:]
    inner = ".".join(parts[:2])
    return inner if inner in rooms else parts[0] if parts else ""


def faults(edges: dict[str, set[str]], rooms: dict[str, set[str]]) -> list[str]:
    """Imports that the table does not allow."""
    found = []
    for module, targets in edges.items():
        own = room(module, rooms)
        if own in ("", "__main__"):
            continue
        for target in targets:
            other = room(target, rooms)
            if own not in rooms:
                found.append(f"{module} stands in the room {own}, which has no row")
            elif other != own and other not in rooms[own]:
                found.append(f"{module} imports {target}: {own} may not import {other}")
    return found


@pytest.fixture(scope="module")
def edges() -> dict[str, set[str]]:
    modules = files()
    assert len(modules) > 100
    return {module: imports(path, modules) - {module} for module, path in modules.items()}


def test_every_import_is_one_that_the_table_allows(edges: dict[str, set[str]]) -> None:
    assert faults(edges, rule()) == []


def test_the_table_has_no_row_or_entry_that_nothing_uses(edges: dict[str, set[str]]) -> None:
    rooms = rule()
    used: dict[str, set[str]] = defaultdict(set)
    for module, targets in edges.items():
        used[room(module, rooms)] |= {room(target, rooms) for target in targets}
    unused = {name: allowed - used[name] for name, allowed in rooms.items()}
    assert {name: entries for name, entries in unused.items() if entries} == {}


def test_a_forbidden_import_is_found(edges: dict[str, set[str]]) -> None:
    rooms = rule()
    for module, target in (("sfc.data.images", "sfc.classify.cam"), ("sfc.refine.crf.dense", "sfc.refine.stage")):
        assert faults({**edges, module: {target}}, rooms) == [
            f"{module} imports {target}: {room(module, rooms)} may not import {room(target, rooms)}"
        ]
    assert "which has no row" in faults({"sfc.attic.old": {"sfc.errors"}}, rooms)[0]


def test_no_two_rooms_import_each_other_and_no_files_go_in_a_circle(edges: dict[str, set[str]]) -> None:
    for graph in (rule(), edges):
        list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())


def test_rooms_are_not_crowded() -> None:
    assert len([path for path in ROOT.glob("*.py") if path.name != "__init__.py"]) <= MOST_LOOSE
    crowded = {
        folder.name: count
        for folder in ROOT.rglob("*")
        if folder.is_dir()
        and (count := len([p for p in folder.glob("*.py") if p.name != "__init__.py"])) > MOST_IN_A_ROOM
    }
    assert crowded == {}
    long = {
        str(path.relative_to(ROOT)): n
        for path in files().values()
        if (n := len(path.read_text().splitlines())) > MOST_LINES
    }
    assert long == {}
