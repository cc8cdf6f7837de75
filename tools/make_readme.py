"""Make README.md from nbs/index.ipynb: prose as it is, code and its stored outputs, pictures as
files.

Usage: python tools/make_readme.py [--check]
--check writes nothing and exits with 1 if the README or a picture is not what the notebook says.
"""

import base64
import re
import sys
import textwrap
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
PICTURES = "nbs/images"


def source(cell: dict) -> tuple[dict[str, str], str]:
    "The `#| name: value` directives of a cell, and the rest of it."
    directives, lines = {}, []
    for line in cell["source"].splitlines():
        if match := re.match(r"#\|\s*([\w-]+):?\s*(.*)", line):
            directives[match[1]] = match[2]
        else:
            lines.append(line)
    return directives, "\n".join(lines).strip()


def convert(notebook: nbformat.NotebookNode) -> tuple[str, dict[str, bytes]]:
    "The README's text, and its pictures by path."
    parts, pictures = [], {}
    for cell in notebook.cells:
        directives, text = source(cell)
        if "hide" in directives:
            continue
        if cell["cell_type"] == "markdown":
            # links between notebooks and to files beside them, seen from the folder above
            parts.append(
                re.sub(r"\]\((?!https?:|#|\.\./)([^)]+)\)", r"](nbs/\1)", text).replace(
                    "](../", "]("
                )
            )
            continue
        if directives.get("echo") != "false" and text:
            parts.append(f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            plain = output.get("text", data.get("text/plain", "")).strip("\n")
            if "image/png" in data:
                path = f"{PICTURES}/readme-{len(pictures) + 1}.png"
                pictures[path] = base64.b64decode(data["image/png"])
                parts.append(f"![{directives.get('fig-alt', '')}]({path})")
            elif plain and output.get("name") != "stderr":
                lines = [
                    part for line in plain.splitlines() for part in textwrap.wrap(line, 100) or [""]
                ]  # a README doesn't scroll
                parts.append("```\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(parts) + "\n", pictures


def main() -> int:
    notebook = nbformat.read(ROOT / "nbs/index.ipynb", as_version=4)
    text, pictures = convert(notebook)
    files = {"README.md": text.encode()} | pictures
    stale = [
        p
        for p, content in files.items()
        if not (ROOT / p).exists() or (ROOT / p).read_bytes() != content
    ]
    stale += [
        str(p.relative_to(ROOT))
        for p in (ROOT / PICTURES).glob("readme-*.png")
        if p.relative_to(ROOT).as_posix() not in files
    ]
    if "--check" in sys.argv[1:]:
        if stale:
            print("not in step with nbs/index.ipynb:", *stale)
        return bool(stale)
    for path in stale:
        if path not in files:
            (ROOT / path).unlink()
            continue
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_bytes(files[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
