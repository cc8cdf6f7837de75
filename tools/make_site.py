"""Make the documentation site from the notebooks as they are stored: nothing is executed, nothing
downloaded.

Usage: python tools/make_site.py [--out FOLDER]
Writes pages for Sphinx into _proc/site and the finished site into _docs, or FOLDER. Any warning
fails. Needs the extra `docs`. Whatever notebooks lie in nbs/ become chapters, in the order of their
numbers.
"""

import argparse
import ast
import base64
import importlib.metadata
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
from make_js import copy_explorer
from make_readme import source
from settings import BRANCH, NOTEBOOKS, REPO, ROOT, SETTINGS, SITE

sys.path.append(str(Path(__file__).parent / "site"))
from comments import to_rst  # noqa: E402

PAGES = ROOT / "_proc/site"
SLUG = REPO.removeprefix("https://github.com/")
PARTS = {
    "0": "Run a Llama",
    "2": "Teach a Llama",
    "3": "Make it fast",
    "4": "Use real models",
    "5": "See and touch",
    "6": "Back matter",
}
NEEDS_KERNEL = "run this cell to use it"  # what a widget is called where there is none (51_widgets)
LIVE = f"{SITE}explorer/"  # the live page, seen from elsewhere
DETAILS = "## Tests of details"  # of a chapter: all that follows is hidden on the site
WIDE = 100  # characters: text output with longer lines is wrapped
MATHJAX = [
    "tex-chtml.js",
    "input/tex/extensions/textmacros.js",
    "output/chtml/fonts/woff-v2/",
]  # of the package's 24 MB, what its pages ask for


# ---- notebooks -----------------------------------------------------------------------------------


def read(path: Path) -> list[nbformat.NotebookNode]:
    "The cells of a notebook."
    return nbformat.read(path, as_version=4).cells


def chapters() -> list[Path]:
    "Every notebook but the index, in reading order."
    return sorted(p for p in NOTEBOOKS.glob("*.ipynb") if p.stem != "index")


def title(path: Path) -> str:
    "`05 · Attention`: the number in the file's name and the first heading."
    heading = next(
        m[1]
        for c in read(path)
        if c["cell_type"] == "markdown" and (m := re.search(r"^# (.+)$", c["source"], re.M))
    )
    return f"{path.stem.split('_')[0]} · {heading}"


def part(path: Path) -> str:
    "The part of the book that a chapter belongs to, as a key of `PARTS`."
    number = int(path.stem[:2])
    return "0" if number < 20 else "6" if number >= 60 else path.stem[0]


def launchers(name: str) -> tuple[str, str]:
    "Where notebook `name` runs in the browser: Colab and Binder."
    return (
        f"https://colab.research.google.com/github/{SLUG}/blob/{BRANCH}/nbs/{name}.ipynb",
        f"https://mybinder.org/v2/gh/{SLUG}/{BRANCH}?urlpath=lab/tree/nbs/{name}.ipynb",
    )


def links(text: str) -> str:
    "Links that leave the folder of notebooks, or lead to what is no page, lead to the repository."

    def target(match: re.Match) -> str:
        path = match[1]
        if path in ("../CONTRIBUTING.md", "../CHANGELOG.md"):
            return f"]({path[3:].lower()})"
        if re.match(r"https?:|#|mailto:|_static/", path) or re.fullmatch(
            r"[\w-]+\.ipynb(#.*)?", path
        ):
            return match[0]
        return (
            f"]({REPO}/blob/{BRANCH}/{(NOTEBOOKS / path).resolve().relative_to(ROOT).as_posix()})"
        )

    live = rf"\[([^]]+)\]\({re.escape(LIVE)}(#[^)]*)?\)"
    text = re.sub(live, r'<a href="explorer/index.html\2">\1</a>', text)
    return re.sub(r"\]\(([^)\s]+)\)", target, text)


def markdown(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def indent(text: str, n: int = 3) -> str:
    return textwrap.indent(text, " " * n)


def code_cell(cell: dict, directives: dict[str, str], text: str, where: str) -> dict:
    "A cell as MyST-NB takes it: tags for what is hidden or exported, the picture's description."
    tags = [
        tag
        for tag, on in {
            "remove-input": directives.get("echo") == "false" or not text,
            "exported": "export" in directives,
        }.items()
        if on
    ]
    outputs = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
    plain = ["".join(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in outputs]
    if any(len(line) > WIDE for p in plain for line in p.splitlines()):
        tags.append("wrapped")
    metadata = {"tags": tags}
    if any("image/png" in o.get("data", {}) for o in outputs):
        if not directives.get("fig-alt"):
            raise SystemExit(f"{where}: expected #| fig-alt for a cell with a picture, found none")
        metadata["mystnb"] = {"image": {"alt": directives["fig-alt"]}}
    return {
        "cell_type": "code",
        "id": cell["id"],
        "metadata": metadata,
        "execution_count": None,
        "source": text,
        "outputs": outputs,
    }


# playground → where the live page shows the same, without a kernel
STATIONS = {
    "attention explorer": "head=4.7&at=heads",
    "cache explorer": "at=way",
    "sampling explorer": "t=0.8&at=next",
    "story stepper": "at=story",
    "explorer": "",
}


def kernel_note(name: str, playground: str) -> dict:
    "What a visitor of the site can do about a playground's picture."
    colab, binder = launchers(name)
    live = ""
    if (station := STATIONS.get(playground)) is not None:
        address = f"explorer/index.html{'#' * bool(station)}{station}"
        live = f'<a href="{address}">Try it live</a> with the bundled model, here and now. '
    return markdown(
        ":::{admonition} Needs a kernel\n:class: note\n"
        f"{live}A picture of how it opens. To move it, it needs a kernel: open this page in"
        f" [Colab]({colab}) or [Binder]({binder}), or in Jupyter on your own machine.\n:::"
    )


def badges(name: str) -> dict:
    colab, binder = launchers(name)
    return markdown(
        f":::{{div}} open-in\n[Open in Colab]({colab}) [Open in Binder]({binder}) "
        f"[Notebook on GitHub]({REPO}/blob/{BRANCH}/nbs/{name}.ipynb)\n:::"
    )


# ---- exercises -----------------------------------------------------------------------------------


def solutions(pictures: dict[str, bytes] | None = None) -> dict[tuple[str, str], str]:
    """(chapter's number, exercise's number) → the answer as Markdown, from 61_solutions;
    `pictures` gets its pictures by path.
    """
    answers, chapter, exercise = {}, None, None
    for cell in read(NOTEBOOKS / "61_solutions.ipynb"):
        directives, text = source(cell)
        if "hide" in directives:
            continue
        if cell["cell_type"] == "code":
            text = f"```python\n{text}\n```"
            for output in cell.get("outputs", []):
                if png := output.get("data", {}).get("image/png"):
                    path = f"_static/answers/{cell['id']}.png"
                    if pictures is not None:
                        pictures[path] = base64.b64decode("".join(png))
                    text += f"\n\n![{directives.get('fig-alt', '')}]({path})"
                    continue
                plain = "".join(
                    output.get("text", output.get("data", {}).get("text/plain", ""))
                ).strip("\n")
                if output.get("name") != "stderr" and plain:
                    text += f"\n\n```text\n{plain}\n```"
        for part in (
            re.split(r"^(?=##+ )", text, flags=re.M) if cell["cell_type"] == "markdown" else [text]
        ):
            if match := re.match(r"## (\d+)", part):
                chapter, exercise = match[1], None
            elif match := re.match(r"### (\d+)\. ([^\n]*)\s*", part):
                exercise, part = match[1], part[match.end() :]
                answers[chapter, exercise] = f"**{match[2]}**\n"
            elif part.startswith("## "):
                chapter = exercise = None
            if exercise and part.strip():
                answers[chapter, exercise] += f"\n{links(part).strip()}\n"
    return answers


def fold_answers(text: str, chapter: str, answers: dict[tuple[str, str], str]) -> str:
    "Put each answer, folded, below its exercise; `text` holds the numbered list."
    head, found, rest = text.partition("## Exercises")
    if not found:
        return text
    out, exercise = [], None

    def close():
        if (chapter, exercise) in answers:
            while out and not out[-1].strip():
                out.pop()
            body = answers.pop((chapter, exercise))
            out.extend(["", indent(f"::::{{dropdown}} Solution\n{body}::::"), ""])

    fenced = False
    for line in rest.splitlines():
        match = None if fenced else re.match(r"(\d+)\. ", line)
        if not fenced and exercise and (match or (line.strip() and not line.startswith(" "))):
            close()
            exercise = None
        if match:
            exercise = match[1]
        if line.lstrip().startswith("```"):
            fenced = not fenced
        out.append(line)
    close()
    return head + found + "\n".join(out)


# ---- pages ---------------------------------------------------------------------------------------


def page(path: Path, answers: dict) -> list[dict]:
    "The cells of a chapter as the site shows them."
    name, cells, titled, details = path.stem, [], False, False
    for cell in read(path):
        directives, text = source(cell)
        details = details or text.startswith(DETAILS)
        if details and cell["cell_type"] == "code" and "hide" not in directives:
            raise SystemExit(f"{name}: after '{DETAILS}', expected #| hide, found {text[:60]!r}")
        if details or "hide" in directives:
            continue
        if cell["cell_type"] == "markdown":
            text = fold_answers(links(text), name.split("_")[0], answers)
            if not titled and (
                head := re.match(r"# .+\n*(> .+\n*)?", text)
            ):  # the badges go below the title's second line
                cells += [markdown(head[0]), badges(name)]
                text, titled = text[head.end() :], True
            if text:
                cells.append(markdown(text))
            continue
        if not text and not cell.get("outputs"):
            continue
        if "export" in directives:
            cells.append(markdown(f"(cell-{cell['id']})="))
        cells.append(code_cell(cell, directives, text, name))
        for output in cell.get("outputs", []):
            shown = "".join(output.get("data", {}).get("text/plain", ""))
            if NEEDS_KERNEL in shown:
                cells.append(kernel_note(name, shown.partition(":")[0]))
    return cells


def description(cells: list[dict]) -> str:
    "What a page is about, for a link to it: the line below its title and its first paragraph."
    prose = "\n\n".join(c["source"] for c in cells if c["cell_type"] == "markdown")
    prose = re.sub(r":::.*?:::", "", prose, flags=re.S)
    parts = [p for p in re.split(r"\n\s*\n", prose) if p.strip() and not re.match(r"[#|(\-<`]", p)]
    text = " ".join(parts[:2]).removeprefix("> ").replace("\n", " ")
    text = re.sub(r"<[^>]+>|!?\[([^]]*)\]\([^)]*\)", r"\1", text)
    return textwrap.shorten(re.sub(r"[*`]", "", text), 200, placeholder=" …")


def write_notebook(name: str, cells: list[dict]) -> None:
    said = description(cells)
    numbered = [{"id": f"cell{i}", **cell} for i, cell in enumerate(cells)]
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        "og:description": said,
        "myst": {"html_meta": {"description": said}},
    }
    notebook = nbformat.v4.new_notebook(cells=nbformat.from_dict(numbered), metadata=metadata)
    nbformat.write(notebook, PAGES / f"{name}.ipynb")


def contents(caption: str, entries: list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```"])


# ---- the API: Sphinx's autodoc, with the comments beside parameters (site/comments.py) -----------


def assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]


def constant(node: ast.Assign | ast.AnnAssign, name: str, lines: list[str]) -> list[str]:
    "What is said of a constant: its value, if that is short, and the comment at the line's end."
    value = ast.unparse(node.value)
    alone = len(assigned(node)) == 1 and len(value) <= 60
    return [f"``{value}``"] * alone + [to_rst(lines[node.end_lineno - 1].partition("  # ")[2])]


def directive(kind: str, name: str, options: list[str], body: list[str]) -> str:
    head = "\n".join([f".. auto{kind}:: {name}", *options])
    parts = [head, *(indent(part) for part in body if part)]
    return "```{eval-rst}\n" + "\n\n".join(parts) + "\n```"


def module_page(chapter: Path, module: str) -> str:
    """Everything in a module's `__all__`, in the order of the chapter, each with a link to the
    cell that it comes from, if that is shown.
    """
    text = (ROOT / "llama2_nb" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    tree, lines, cell = ast.parse(text), text.splitlines(), None
    cells = {i: m[1] for i, s in enumerate(lines, 1) if (m := re.match(r"# %% \S+ #(\w+)", s))}
    shown = {each["id"] for each in read(chapter) if "hide" not in source(each)[0]}
    full, public, entries = f"llama2_nb.{module}", [], []
    for node in tree.body:
        cell = max((i for i in cells if i <= node.lineno), default=None)
        linked = cell is not None and cells[cell] in shown
        where = f":ref:`In the chapter <cell-{cells[cell]}>`" if linked else ""
        if isinstance(node, ast.FunctionDef):
            entries.append((node.name, "function", [], [where]))
        elif isinstance(node, ast.ClassDef):
            error = any(ast.unparse(base).endswith("Error") for base in node.bases)
            # a class may grow in steps, by private bases: what they bring belongs to it
            inherited = any(ast.unparse(base).startswith("_") for base in node.bases)
            shown = ["   :members:", "   :member-order: bysource"]
            shown += ["   :inherited-members:"] * (inherited and not error)
            entries.append((node.name, "exception" if error else "class", shown, [where]))
        elif isinstance(node, ast.Assign) and assigned(node) == ["__all__"]:
            public = ast.literal_eval(node.value)
        elif isinstance(node, ast.Assign) or (isinstance(node, ast.AnnAssign) and node.value):
            for name in assigned(node):
                body = [*constant(node, name, lines), where]
                entries.append((name, "data", ["   :no-value:"], body))
    out = [
        f"# {full}",
        f"> {ast.get_docstring(tree)}",
        f"Explained in [{title(chapter)}](../{chapter.stem}.ipynb).",
        f"```{{py:module}} {full}\n```",
    ]
    for name, kind, options, body in entries:
        if name in public:
            public.remove(name)
            out.append(directive(kind, f"{full}.{name}", options, body))
    if public:
        raise SystemExit(f"{full}: expected definitions of {public}, found none")
    return "\n\n".join(out) + "\n"


def command_page(chapter: Path | None) -> str:
    "The help of the command and of everything it does."
    from typer.main import get_command
    from typer.testing import CliRunner
    from llama2_nb import cli

    def text(*args: str) -> str:
        done = CliRunner().invoke(
            cli.app,
            [*args, "--help"],
            prog_name="llama2-nb",
            env={"COLUMNS": "90", "TERMINAL_WIDTH": "90"},
        )
        return f"```text\n$ llama2-nb {' '.join([*args, '--help'])}\n{done.stdout.strip()}\n```"

    parts = ["# The command llama2-nb", text()]
    for name, command in get_command(cli.app).commands.items():
        parts += [f"## {name}", text(name)]
    if chapter:
        parts.insert(1, f"How it is made: [{title(chapter)}]({chapter.stem}.ipynb).")
    return "\n\n".join(parts) + "\n"


# ---- all of it -----------------------------------------------------------------------------------


def copy_mathjax(to: Path) -> None:
    "Of the installed MathJax, the files that the pages ask for."
    for file in importlib.metadata.files("sphinx-mathjax-offline"):
        path = file.as_posix().partition("static/mathjax/")[2]
        if path and path.startswith(tuple(MATHJAX)):
            (to / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), to / path)
    if not (to / MATHJAX[0]).exists():
        raise SystemExit("MathJax isn't where sphinx-mathjax-offline keeps it")


def write_pages() -> None:
    "The whole source of the site, made anew."
    shutil.rmtree(PAGES, ignore_errors=True)
    (PAGES / "api").mkdir(parents=True)
    copy_explorer(PAGES / "_extra/explorer")
    copy_mathjax(PAGES / "_static/mathjax")
    pictures, modules = {}, {}
    answers = solutions(pictures)
    for path, png in pictures.items():
        (PAGES / path).parent.mkdir(exist_ok=True)
        (PAGES / path).write_bytes(png)
    for path in chapters():
        write_notebook(path.stem, page(path, answers))
        if exported := next(
            (
                m[1]
                for c in read(path)
                if (m := re.search(r"^#\|\s*default_exp ([\w.]+)", c["source"], re.M))
            ),
            None,
        ):
            modules[exported] = path
    if answers:
        raise SystemExit(f"61_solutions answers exercises that no chapter has: {sorted(answers)}")
    command = modules.pop("cli", None)
    for module, path in modules.items():
        (PAGES / f"api/{module}.md").write_text(module_page(path, module), encoding="utf-8")
    (PAGES / "command.md").write_text(command_page(command), encoding="utf-8")
    for file in "CHANGELOG.md", "CONTRIBUTING.md":
        text = re.sub(
            r"\]\((?!https?:|#)nbs/([\w-]+\.ipynb)\)",
            r"](\1)",
            (ROOT / file).read_text(encoding="utf-8"),
        )
        text = re.sub(
            r"\]\((?!https?:|#|[\w-]+\.ipynb\))([^)\s]+)\)", rf"]({REPO}/blob/{BRANCH}/\1)", text
        )
        (PAGES / file.lower()).write_text(text, encoding="utf-8")
    front = [c for c in page(NOTEBOOKS / "index.ipynb", {})]
    tables = [
        contents(caption, [f"{title(p)} <{p.stem}>" for p in chapters() if part(p) == key])
        for key, caption in PARTS.items()
    ]
    tables.append(
        contents(
            "Reference",
            ["command", *[f"llama2_nb.{m} <api/{m}>" for m in modules], "All names <genindex>"],
        )
    )
    tables.append(contents("The project", ["contributing", "changelog"]))
    write_notebook("index", [*front, markdown("\n\n".join(tables))])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / SETTINGS["DEFAULT"]["doc_path"])
    args = parser.parse_args()
    write_pages()
    html = ROOT / "_proc/html"
    for folder in html, args.out:
        shutil.rmtree(folder, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-b",
        "html",
        "-c",
        ROOT / "tools/site",
        "-j",
        "2",
        "-W",
        "--keep-going",
        "-d",
        ROOT / "_proc/doctrees",
        PAGES,
        html,
    ]
    if status := subprocess.run(command).returncode:
        return status
    shutil.move(html, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
