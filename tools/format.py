"""Lay out the code of chapters and tools with ruff, and look for what it forbids.

Usage: python tools/format.py [--check] [CHAPTER ...]
CHAPTER is a notebook in nbs/ without its suffix; without any: all of them, the tools and the
modules. The chapters of the lesson (00 to 11) have lines of 88 characters at most, everything else
of 100. --check writes nothing and exits with 1 if a file would change. The rest of the settings is
in pyproject.toml. Needs the extra `dev`.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LESSON, ELSEWHERE = 88, 100


def limit(name: str) -> int:
    "The longest line that a chapter may have, by its number."
    return LESSON if name[:2].isdigit() and int(name[:2]) <= 11 else ELSEWHERE


def ruff(command: list[str], line_length: int, paths: list[Path]) -> bool:
    "Whether all was well; ruff says what was not."
    if not paths:
        return True
    command = [sys.executable, "-m", "ruff", *command, f"--line-length={line_length}", *paths]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def main() -> int:
    names = [name for name in sys.argv[1:] if name != "--check"]
    check = ["--check"] if "--check" in sys.argv[1:] else []
    chapters = [ROOT / "nbs" / f"{name}.ipynb" for name in names]
    if not names:
        chapters = sorted((ROOT / "nbs").glob("*.ipynb"))
    for path in chapters:
        if not path.exists():
            print(f"{path.relative_to(ROOT)}: no such notebook", file=sys.stderr)
            return 2
    good = True
    for length in LESSON, ELSEWHERE:
        paths = [path for path in chapters if limit(path.stem) == length]
        modules = []
        if not names and length == ELSEWHERE:
            paths += [ROOT / "tools", ROOT / "setup.py", ROOT / "conftest.py"]
            modules = [ROOT / "llama2_nb"]
        good &= ruff(["format", *check], length, paths)
        good &= ruff(["check"], length, paths + modules)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
