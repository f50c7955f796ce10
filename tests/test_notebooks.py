"""The notebooks run from top to bottom as they are shipped."""

import nbclient
import nbformat
import pytest

from tests.helpers import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS] == ["analysis.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    notebook = nbformat.read(path, as_version=4)
    shipped = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert any(shipped), "it is shipped with its outputs"
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()
    texts = [_texts(outputs) for outputs in shipped]
    executed = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert [_texts(outputs) for outputs in executed] == texts  # the shipped numbers hold


def _texts(outputs: list) -> list[str]:
    return [
        output.get("text") or output["data"]["text/plain"]
        for output in outputs
        if "image/png" not in output.get("data", {})
    ]
