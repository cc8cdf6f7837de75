"""Make a release and check it: both archives built, looked into, installed from the wheel alone,
run with the network cut.

Usage: python tools/release.py [--for-tag vX.Y.Z | --tag]
Leaves the archives in dist/. --for-tag also checks that the tag names this version; --tag makes the
tag, in a clean working tree whose CHANGELOG.md has a section for this version. Publishing is left
to the workflow that a pushed tag starts. Needs the extra `release`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 6_000_000  # bytes of the wheel
DEAD = "http://127.0.0.1:9"  # a proxy that nobody is
STORY = ("generate", "Once upon a time", "--seed", "1")


def version() -> str:
    ini = ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    return ini["DEFAULT"]["version"]


def tracked(pattern: str) -> set[str]:
    "Files that git knows, so that nothing else slips into an archive."
    return set(
        subprocess.run(
            ["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    )


def look_into(wheel: Path, sdist: Path) -> list[str]:
    "What is wrong with the archives."
    expected, problems = tracked("llama2_nb"), []
    with zipfile.ZipFile(wheel) as z:
        in_wheel = {n for n in z.namelist() if n.startswith("llama2_nb/")}
    with tarfile.open(sdist) as t:
        in_sdist = {n.partition("/")[2] for n in t.getnames()}
    models = {n for n in expected if n.startswith("llama2_nb/models/")}
    package = {
        n for n in expected if not n.startswith("llama2_nb/voila/")
    }  # those go where Voilà looks
    for name, held, needed in (
        ("wheel", in_wheel, package),
        (
            "sdist",
            in_sdist,
            expected | {"settings.ini", "setup.py", "LICENSE", "README.md", "CHANGELOG.md"},
        ),
    ):
        if missing := needed - held:
            problems.append(
                f"{name}: expected {sorted(missing)[0]} and {len(missing) - 1} more, found none of"
                " them"
            )
    if not models:
        problems.append("there is no model in llama2_nb/models")
    if stray := in_wheel - package:
        problems.append(f"wheel: {sorted(stray)[0]} is not ours")
    if (size := wheel.stat().st_size) > LARGEST:
        problems.append(f"wheel: expected at most {LARGEST:,} bytes, found {size:,}")
    return problems


def controls(wheel: Path, sdist: Path) -> list[str]:
    "A wheel without its model, one with a stranger and one that is too large must be refused."
    missed = []
    with tempfile.TemporaryDirectory() as temporary:
        for fault, expected in (
            ("no model", "models/"),
            ("stray", "is not ours"),
            ("large", "expected at most"),
        ):
            spoiled = Path(temporary) / wheel.name
            with zipfile.ZipFile(wheel) as z, zipfile.ZipFile(spoiled, "w") as out:
                for name in z.namelist():
                    if not (fault == "no model" and name.endswith(".bin")):
                        out.writestr(name, z.read(name))
                if fault == "stray":
                    out.writestr("llama2_nb/secret.txt", "x")
                if fault == "large":
                    out.writestr("other/noise", os.urandom(LARGEST))
            if not any(expected in p for p in look_into(spoiled, sdist)):
                missed.append(fault)
    return missed


def without_network() -> tuple[list[str], dict[str, str]]:
    """How to run a command so that it reaches nobody: in a network namespace of its own or, where
    that isn't allowed, behind a dead proxy.
    """
    alone = ["unshare", "--map-root-user", "--net"]
    interfaces = "import socket; print([name for _, name in socket.if_nameindex()])"
    if shutil.which("unshare"):
        done = subprocess.run(
            [*alone, sys.executable, "-c", interfaces], capture_output=True, text=True
        )
        if done.returncode == 0 and done.stdout.strip() in ("['lo']", "[]"):
            return alone, {}
    return [], {
        name: DEAD
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    }


def install_and_run(wheel: Path) -> list[str]:
    "From the wheel alone, in a new environment and an empty folder."
    problems, (alone, proxies) = [], without_network()
    print(f"the network is cut by {' '.join(alone) or 'a dead proxy'}")
    with tempfile.TemporaryDirectory() as temporary:
        folder, environment = Path(temporary) / "empty", Path(temporary) / "environment"
        folder.mkdir()
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        scripts = environment / ("Scripts" if os.name == "nt" else "bin")
        subprocess.run([scripts / "python", "-m", "pip", "install", "-q", wheel], check=True)
        env = (
            {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            | proxies
            | {"HF_HUB_OFFLINE": "1"}
        )

        def run(*command):
            return subprocess.run(
                [*alone, *command], cwd=folder, env=env, capture_output=True, text=True
            )

        stories = [run(scripts / "llama2-nb", *STORY) for _ in range(2)]
        for done in stories:
            if done.returncode or len(done.stdout) < 300:
                problems.append(
                    f"llama2-nb {' '.join(STORY)}: status {done.returncode}, {done.stdout!r}"
                    f" {done.stderr!r}"
                )
        if stories[0].stdout != stories[1].stdout:
            problems.append("the same seed told two stories")
        where = run(
            scripts / "python",
            "-c",
            "import llama2_nb.core; print(llama2_nb.__file__, llama2_nb.__version__)",
        ).stdout.split()
        if not where or not Path(where[0]).is_relative_to(environment):
            problems.append(f"expected the package in {environment}, found {where}")
        elif where[1] != version():
            problems.append(f"expected version {version()}, found {where[1]}")
        if (
            alone
            and run(
                scripts / "python",
                "-c",
                "import socket; socket.create_connection(('192.0.2.1', 80), 3)",
            ).returncode
            == 0
        ):
            problems.append("the network was not cut")
        if list(folder.iterdir()):
            problems.append(f"files were left behind: {list(folder.iterdir())}")
        print(stories[0].stdout.splitlines()[0][:100] if stories[0].stdout else "")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--for-tag", metavar="vX.Y.Z", help="the tag that this is built for")
    parser.add_argument(
        "--tag", action="store_true", help="make the tag of this version if all is well"
    )
    options = parser.parse_args()
    name, problems = f"v{version()}", []
    if options.for_tag not in (None, name):
        problems.append(
            f"settings.ini: expected the version of tag {options.for_tag}, found {version()}"
        )
    if not re.search(
        rf"^## {re.escape(version())}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M
    ):
        problems.append(f"CHANGELOG.md: expected a section {version()}, found none")
    if f"version: {version()}\n" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8"):
        problems.append(f"CITATION.cff: expected version {version()}")
    if (
        options.tag
        and subprocess.run(
            ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True
        ).stdout
    ):
        problems.append("the working tree has changes that are not committed")
    for folder in "dist", "build":
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", ROOT / "dist", ROOT],
        capture_output=True,
        text=True,
    )
    if built.returncode:
        print(built.stdout, built.stderr)
        return 1
    wheel, sdist = next((ROOT / "dist").glob("*.whl")), next((ROOT / "dist").glob("*.tar.gz"))
    print(
        f"{wheel.name}: {wheel.stat().st_size:,} bytes; {sdist.name}: {sdist.stat().st_size:,}"
        " bytes"
    )
    if missed := controls(wheel, sdist):
        print("faults made on purpose were not seen:", missed)
        return 1
    problems += look_into(wheel, sdist)
    for check in (
        [sys.executable, "-m", "twine", "check", "--strict", wheel, sdist],
        [sys.executable, "-m", "check_wheel_contents", wheel],
    ):
        if subprocess.run(check).returncode:
            problems.append(f"{check[2]} found fault")
    problems += install_and_run(wheel)
    print(*problems, sep="\n")
    if not problems and options.tag:
        subprocess.run(
            ["git", "tag", "-a", name, "-m", f"llama2_nb {version()}"], cwd=ROOT, check=True
        )
        print(f"tagged; to publish: git push origin {name}")
    print(f"{name}: {len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
