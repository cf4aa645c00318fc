"""The notebook, from its first cell to its last, at a small size on the CPU."""

import json
import os
import sys
from importlib import metadata
from pathlib import Path

import nbclient
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tests.devices import xla_flags
from tests.tpu_scripts.cloud import SCRIPTS

PATH = SCRIPTS / "colab.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def code(notebook, begin):
    """The source of the one cell of code that begins so."""
    (cell,) = [cell.source for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith(begin)]
    return cell


def run_install(notebook, **names):
    """Runs the cell that installs, with a shell that only writes down what it would run."""
    commands = []

    class Shell:
        def system(self, command):
            commands.append(command.removeprefix("{python} -m ").format(**names))

    names |= {"get_ipython": Shell, "python": sys.executable, "Path": Path}
    exec(TransformerManager().transform_cell(code(notebook, "import importlib.metadata")), names)
    return commands


def missing(name):
    raise metadata.PackageNotFoundError(name)


def said(cell):
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


def test_nothing_of_a_run_is_stored_in_it(notebook):
    nbformat.validate(notebook)
    assert [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []
    lines = [line for cell in notebook.cells for line in cell.source.splitlines()]
    assert not any(line.startswith(("import jax", "from jax")) for line in lines)  # the TPU is for the commands


@pytest.mark.parametrize(
    "machine, inside, installed",
    [
        (dict(TPU=True, GPU=False), False, '"jax_ssl[tpu] @ git+https://host/jax_ssl" '),
        (dict(TPU=False, GPU=True), False, '"jax_ssl @ git+https://host/jax_ssl" jax[cuda12]'),
        (dict(TPU=False, GPU=False), False, '"jax_ssl @ git+https://host/jax_ssl" '),
        (dict(TPU=True, GPU=False), True, f'"{SCRIPTS.parent}[tpu]" '),
    ],
)
def test_what_is_installed_on_which_runtime(machine, inside, installed, notebook, monkeypatch, tmp_path):
    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.chdir(SCRIPTS if inside else tmp_path)
    assert run_install(notebook, REPOSITORY="https://host/jax_ssl", **machine) == [f"pip install -q {installed}"]


def test_without_an_address_it_says_what_to_set(notebook, monkeypatch, tmp_path):
    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="Set REPOSITORY"):
        run_install(notebook, REPOSITORY="https://github.com/OWNER/jax_ssl", TPU=False, GPU=False)


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TPU_")} | {
        "JAX_SSL_NOTEBOOK_SMALL": "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags(1),
        "PYTHONPATH": str(SCRIPTS.parent),
    }  # fmt: skip
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.create_kernel_manager()
    client.km.kernel_spec.argv[0] = sys.executable
    client.execute(env=environment)
    everything = "".join(said(cell) for cell in notebook.cells)
    assert "Error" not in everything and "jax_ssl: " not in everything, everything
    assert everything.count("kNN k=20") >= 2 and "raw pixels" in everything  # the run's own table, and evaluate's
    stopped, again = [said(cell) for cell in notebook.cells if "all saved" in said(cell) or "going on" in said(cell)]
    assert "all saved" in stopped and "going on from step" in again
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    for run in ("quickstart", "mae", "dino", "resumed"):
        folder = tmp_path / "runs" / run
        config = json.loads((folder / "config.json").read_text())
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        assert last["step"] == round(config["epochs"] * 5000 / config["batch_size"])
