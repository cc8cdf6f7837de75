"""Collect the named tests of the chapters, so that pytest runs one chapter or one test.

    pytest nbs/05_attention.ipynb            every test of a chapter, then the rest of its cells
    pytest -k test_rotation_keeps_norms      one test, by its name
    pytest --flags slow nbs/37_scale.ipynb   cells marked `#| slow`, too

`nbdev_test` runs whole notebooks and stays what must pass; this is for the work on one of them.
A test is a function `test_…` that a cell defines and calls. Here the earlier cells of its chapter
run first, once for all tests of the chapter and without the calls of other tests. A chapter has a
process of its own, as it has in `nbdev_test`, so that no chapter sees what another one has changed.
The item `cells` is all other code of the chapter; where it isn't wanted, cells that only show a
picture are left out.

Why not a plugin: those that exist run whole notebooks or whole cells; none knows tests by name.
"""

import ast
import multiprocessing
import os
import sys
import traceback
from configparser import ConfigParser
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent
REST = "cells"  # the item for everything that isn't a named test


class Cell(NamedTuple):
    number: int
    source: str
    flags: frozenset[str]  # names of its directives `#| name: value`
    tests: tuple[str, ...]  # names of the tests that it defines


def is_test(node: ast.AST) -> bool:
    "Is it a function `test_…` that can be called without arguments, or by a decorator's?"
    if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
        return False
    needed = len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults)
    needed += sum(default is None for default in node.args.kw_defaults)
    return bool(node.decorator_list) or needed == 0


def read_cells(path: Path) -> list[Cell]:
    "The code cells of a notebook that Python can read; one with a shell command is left out."
    cells = []
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type != "code" or "nbdev_export(" in cell.source:
            continue
        lines = cell.source.splitlines()
        directives = [line[2:].strip() for line in lines if line.startswith("#|")]
        flags = frozenset(directive.split(":")[0].split()[0] for directive in directives)
        if "eval: false" in directives:
            continue
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:
            continue
        tests = tuple(node.name for node in tree.body if is_test(node))
        cells.append(Cell(number, cell.source, flags, tests))
    return cells


def skipped_flags(wanted: str) -> frozenset[str]:
    "Flags of cells that don't run: those of settings.ini without the ones that are wanted."
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    return frozenset(settings["DEFAULT"]["tst_flags"].split()) - frozenset(wanted.split())


# ---- in the chapter's process --------------------------------------------------------------------


def calls_a_test(node: ast.stmt, tests: set[str]) -> bool:
    "Is it `test_a()`, or `for test in test_a, test_b: test()`?"
    if isinstance(node, ast.For) and isinstance(node.iter, (ast.Tuple, ast.List)):
        names = {item.id for item in node.iter.elts if isinstance(item, ast.Name)}
        if len(node.body) == 1 and names and names <= tests and isinstance(node.target, ast.Name):
            return calls_a_test(node.body[0], {node.target.id})
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return False
    return isinstance(node.value.func, ast.Name) and node.value.func.id in tests


def only_shows(cell: Cell) -> bool:
    "Is it a cell with a picture that gives nothing a name?"
    body = ast.parse(cell.source).body
    return "fig-alt" in cell.flags and all(isinstance(node, ast.Expr) for node in body)


def without_calls(source: str, tests: set[str]) -> str:
    "The lines of a cell, those empty that only call tests."
    lines = source.split("\n")
    for node in ast.parse(source).body:
        if calls_a_test(node, tests):
            for line in range(node.lineno - 1, node.end_lineno):
                lines[line] = ""
    return "\n".join(lines)


class CellFailed(Exception):
    "A cell that a test needs went wrong."


class Chapter:
    "A chapter under way: the cells that have run, and their names."

    def __init__(self, path: Path, skipped: frozenset[str], whole: bool):
        from execnb.shell import CaptureShell  # what nbdev_test runs notebooks with

        os.environ["IN_TEST"] = "1"
        os.chdir(path.parent)
        self.shell = CaptureShell(path)
        self.cells = [cell for cell in read_cells(path) if not cell.flags & skipped]
        self.tests = {name for cell in self.cells for name in cell.tests}
        if not whole:
            self.cells = [cell for cell in self.cells if not only_shows(cell)]
        self.outcomes: dict[int, str] = {}  # cell → what went wrong, "" for nothing

    def run_cell(self, cell: Cell) -> None:
        "Run a cell if it hasn't run yet. Raises `CellFailed` if it fails or has failed."
        if cell.number not in self.outcomes:
            self.shell.run(without_calls(cell.source, self.tests))
            lines = traceback.format_exception(self.shell.exc) if self.shell.exc else []
            self.outcomes[cell.number] = "".join(lines)
        if said := self.outcomes[cell.number]:
            raise CellFailed(f"cell {cell.number} failed\n\n{said}")

    def run(self, name: str) -> None:
        "Run a test after the cells before it, or the rest of the cells."
        last = max((cell.number for cell in self.cells if name in (REST, *cell.tests)), default=-1)
        for cell in self.cells:
            if cell.number <= last:
                self.run_cell(cell)
        if name != REST:
            self.shell.user_ns[name]()


def serve(pipe, path: Path, skipped: frozenset[str], whole: bool) -> None:
    "Run what the pipe names, until it names nothing; answer with what was wrong."
    chapter = Chapter(path, skipped, whole)
    while (name := pipe.recv()) is not None:
        try:
            chapter.run(name)
            pipe.send(None)
        except CellFailed as e:
            pipe.send(str(e))
        except BaseException:
            pipe.send(traceback.format_exc())
        sys.stdout.flush()
        sys.stderr.flush()


# ---- in pytest's ---------------------------------------------------------------------------------


class ChapterFile(pytest.File):
    process = pipe = None

    def collect(self):
        skipped = skipped_flags(self.config.getoption("flags"))
        for cell in read_cells(self.path):
            for name in cell.tests:
                item = Test.from_parent(self, name=name, cell=cell.number)
                if flags := cell.flags & skipped:
                    item.add_marker(pytest.mark.skip(f"needs --flags '{' '.join(sorted(flags))}'"))
                yield item
        yield Test.from_parent(self, name=REST, cell=0)

    def ask(self, name: str) -> str | None:
        "Let the chapter's process run something; what went wrong, or None."
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, other = context.Pipe()
            skipped = skipped_flags(self.config.getoption("flags"))
            items = self.session.items
            whole = any(item.parent is self and item.name == REST for item in items)
            args = (other, self.path, skipped, whole)
            self.process = context.Process(target=serve, args=args)
            self.process.start()
            other.close()
        try:
            self.pipe.send(name)
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            status, self.process = self.process.exitcode, None
            return f"the chapter's process ended with status {status}"

    def teardown(self):
        if self.process is None:
            return
        try:
            self.pipe.send(None)
        except OSError:
            pass
        self.process.join()
        self.process = None


class TestFailed(Exception):
    "What a chapter's process says of a test that failed."


class Test(pytest.Item):
    def __init__(self, *, cell: int, **of_pytest):
        super().__init__(**of_pytest)
        self.cell = cell

    def runtest(self):
        if said := self.parent.ask(self.name):
            raise TestFailed(said)

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, TestFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self):
        return self.path, self.cell, f"{self.path.stem}: {self.name}"


def pytest_addoption(parser):
    parser.addoption("--flags", default="", help="run cells with these flags, too")


def pytest_collect_file(file_path: Path, parent):
    if file_path.suffix == ".ipynb" and ".ipynb_checkpoints" not in file_path.parts:
        return ChapterFile.from_parent(parent, path=file_path)
    return None
