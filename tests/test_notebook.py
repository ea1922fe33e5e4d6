"""docs/notebook.ipynb runs as it stands, from an empty folder, and shows what it showed."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def shown(notebook: nbformat.NotebookNode) -> list[set[str]]:
    """Kinds of output of each cell of code; warnings and progress, which come by the error stream, count nothing."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kinds = []
    for cell in cells:
        outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        found = {kind for output in outputs for kind in output.get("data", {output.output_type: ""})}
        kinds.append(found - {"image/jpeg"})  # beside the same picture as PNG
    return kinds


@pytest.mark.timeout(900)  # two minutes on an idle machine
@pytest.mark.filterwarnings("ignore")  # of the programs that run notebooks
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that share cores with other tests mostly wait for each other
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    saved = shown(notebook)
    assert sum("image/png" in kinds for kinds in saved) == 2
    fresh = nbformat.from_dict(notebook)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(fresh, timeout=500, kernel_name="python3", resources=resources).execute()
    assert shown(fresh) == saved
    said = "".join(output.get("text", "") for cell in fresh.cells for output in cell.get("outputs", []))
    assert "Warning" not in said
    assert (tmp_path / "masks.json").stat().st_size > 100
    assert (tmp_path / "model" / "model.safetensors").exists()
