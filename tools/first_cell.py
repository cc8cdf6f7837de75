"""Give every notebook the cell that fetches and installs the book where it was opened alone, as in
Colab.

Usage: python tools/first_cell.py [--check | --try]
The cell stands before the first one that computes. --check writes nothing and exits with 1 if a
notebook lacks it. --try opens a notebook alone, in an environment without the package, with this
repository in the place of GitHub's.
"""

import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import nbformat
from settings import NOTEBOOKS, REPO, ROOT

MARK = "# Opened alone, as in Colab"
CELL = f"""#| hide
{MARK}: fetch the book and install it. Elsewhere this does nothing.
import os
from importlib.util import find_spec

if find_spec("llama2_nb") is None:
    !git clone -q --depth 1 {REPO} book
    %pip install -q "./book[chapters]"
if os.path.isdir("book/nbs"):
    os.chdir("book/nbs")"""
TRIED = "02_checkpoint"  # reads fixtures that lie beside it


def computes(cell: nbformat.NotebookNode) -> bool:
    "Whether a cell holds more than directives."
    lines = cell.source.splitlines()
    return cell.cell_type == "code" and any(not line.startswith("#|") for line in lines)


def with_cell(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    "The same notebook with the cell, up to date, in its place."
    cells = [c for c in notebook.cells if MARK not in c.source]
    cell = next((c for c in notebook.cells if MARK in c.source), None)
    cell = nbformat.v4.new_code_cell(CELL, id=cell.id if cell else uuid.uuid4().hex[:8])
    place = next((i for i, c in enumerate(cells) if computes(c)), len(cells))
    return nbformat.from_dict(notebook | {"cells": [*cells[:place], cell, *cells[place:]]})


def run_alone(folder: Path, environment: Path) -> subprocess.CompletedProcess:
    "Run the notebook in `folder`, where nothing else is, as IPython runs one."
    # a commit of what is here, so that what is cloned is what is tested
    commit = (
        subprocess.run(
            ["git", "stash", "create"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        or "HEAD"
    )
    remote = folder.parent / "remote"
    subprocess.run(["git", "clone", "-q", "--bare", ROOT, remote], check=True)
    subprocess.run(["git", "fetch", "-q", ROOT, commit], cwd=remote, check=True)
    subprocess.run(["git", "update-ref", "HEAD", "FETCH_HEAD"], cwd=remote, check=True)
    there = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{remote}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPO,
        "MPLBACKEND": "agg",
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "IPYTHONDIR": str(folder.parent / "ipython"),
    }
    here = {
        k: v
        for k, v in os.environ.items()
        if k not in ("PYTHONPATH", "VIRTUAL_ENV", "LLAMA2_NB_REFERENCE")
    }
    return subprocess.run(
        [
            environment / "bin/ipython",
            "--no-banner",
            "--colors=NoColor",
            "-c",
            f"%run {TRIED}.ipynb\nprint('to the end')",
        ],
        cwd=folder,
        env=here | there,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def try_it() -> int:
    """In an environment that has IPython and NumPy: without the cell the notebook must fail, with
    it it must run.
    """
    with tempfile.TemporaryDirectory() as temporary:
        environment = Path(temporary) / "environment"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run(
            [environment / "bin/pip", "install", "-q", "ipython", "nbformat", "numpy"], check=True
        )
        for kept in False, True:
            folder = Path(temporary) / str(kept) / "alone"
            folder.mkdir(parents=True)
            notebook = nbformat.read(NOTEBOOKS / f"{TRIED}.ipynb", as_version=4)
            if not kept:
                notebook.cells = [c for c in notebook.cells if MARK not in c.source]
            nbformat.write(notebook, folder / f"{TRIED}.ipynb")
            done = run_alone(folder, environment)
            if not (
                done.stdout.endswith("to the end\n")
                if kept
                else "No module named" in done.stdout + done.stderr  # the book's, or what it needs
            ):
                print(
                    f"{'with' if kept else 'without'} its cell, {TRIED} alone: status"
                    f" {done.returncode}",
                    done.stdout[-2000:],
                    done.stderr[-2000:],
                    sep="\n",
                )
                return 1
    print(
        f"{TRIED} alone: fetches the book, installs it and runs to the end; without the cell it"
        " doesn't"
    )
    return 0


def main() -> int:
    if "--try" in sys.argv[1:]:
        return try_it()
    stale = []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if (new := with_cell(notebook)) != notebook:
            stale.append(path.name)
            if "--check" not in sys.argv[1:]:
                nbformat.write(new, path)
    print("\n".join(stale) if stale else "every notebook opens alone")
    return bool(stale) and "--check" in sys.argv[1:]


if __name__ == "__main__":
    sys.exit(main())
