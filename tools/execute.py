"""Execute notebooks, so that they are stored with their outputs, and clean them.

Usage: python tools/execute.py [NAME ...]
NAME is a notebook in nbs/ without its suffix; without any, all of them are executed in reading
order. Warnings are dropped. Live widgets are stored as their pictures alone: a view whose kernel is
gone would be an error message.
"""

import subprocess
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "nbs"
WIDGET = "application/vnd.jupyter.widget-view+json"


def is_warning(output: nbformat.NotebookNode) -> bool:
    "Whether an output is a warning on stderr, which names a path of this machine."
    return output.get("name") == "stderr" and "Warning: " in output.get("text", "")


def execute(path: Path) -> None:
    "Run a notebook in its folder and store its outputs."
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if not is_warning(o)]
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)


def main() -> int:
    names = sys.argv[1:] or sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb"))
    for name in names:
        path = NOTEBOOKS / f"{name}.ipynb"
        if not path.exists():
            print(f"{path.relative_to(NOTEBOOKS.parent)}: no such notebook", file=sys.stderr)
            return 2
        print(name, flush=True)
        execute(path)
    return subprocess.run(["nbdev_clean"], cwd=NOTEBOOKS.parent).returncode


if __name__ == "__main__":
    sys.exit(main())
