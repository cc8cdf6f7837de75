"""Kill writers, interrupt stories and close pipes at random moments, and count what is left.

Usage: python tools/fault_test.py [--kills N] [--interrupts N] [--seed S]      (not on Windows)
0 leaves a test out. Prints a row of Markdown for each; exits with 1 if one of them failed, or if a
control passed what must fail.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from llama2_nb.config import Config, bundled_model, tensor_shapes
from llama2_nb.formats.llama2c import quantize_checkpoint, write_checkpoint
from llama2_nb.tokenizer import Tokenizer

MEMORY = (
    "/dev/shm" if os.path.isdir("/dev/shm") else None
)  # a kill, unlike a power cut, asks nothing of the disk
COMMAND = "from llama2_nb.cli import main; main()"
# the controls: a writer that goes to the file itself, and a command that answers to nothing
NAIVE_COMMAND = """from llama2_nb.core import stream
for seed in range(1, 30):
    for piece in stream(steps=0, temperature=3, seed=seed): print(piece, end="", flush=True)"""


def writers(
    folder: Path,
) -> dict[str, list]:  # name → two functions that write a file of their own each
    "What writes files, each in two versions of the same file."
    c = Config(64, 172, 3, 8, 4, 512, 128)
    models = [
        {name: np.full(shape, value, np.float32) for name, shape in tensor_shapes(c).items()}
        for value in (1, 2)
    ]
    sources = [folder / f"source{i}.bin" for i in range(2)]
    for path, weights in zip(sources, models):
        write_checkpoint(path, c, weights)
    vocabulary = Tokenizer.open(bundled_model().parent / "tok896.bin")
    vocabularies = [
        Tokenizer(vocabulary.pieces, [score + i for score in vocabulary.scores]) for i in range(2)
    ]

    def naive(path: Path, weights: dict) -> None:
        with open(path, "wb") as f:
            for w in weights.values():
                f.write(w.data)

    return {
        "write_checkpoint, version 0": [lambda p, w=w: write_checkpoint(p, c, w) for w in models],
        "write_checkpoint, version 1": [
            lambda p, w=w: write_checkpoint(p, c, w, version=1) for w in models
        ],
        "quantize_checkpoint": [lambda p, s=s: quantize_checkpoint(s, p) for s in sources],
        "Tokenizer.write": [lambda p, v=v: v.write(p) for v in vocabularies],
        "control: open(path, 'wb')": [lambda p, w=w: naive(p, w) for w in models],
    }


def kill_at(write: list, target: Path, seconds: float) -> None:
    "Write one and the other version in a process that is killed after so many seconds."
    began, child = os.pipe(), os.fork()
    if child == 0:
        os.write(began[1], b"!")
        while True:
            for f in write:
                f(target)
    os.read(began[0], 1)
    for end in began:
        os.close(end)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def kills(name: str, write: list, n: int, rng: random.Random) -> tuple[str, bool]:
    "A row, and whether all was well."
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        target = Path(folder) / "model.bin"
        good, took = [], []
        for f in write:
            began = time.perf_counter()
            f(target)
            took.append(time.perf_counter() - began)
            good.append(target.read_bytes())
        assert good[0] != good[1]
        half = mid_write = litter = 0
        for _ in range(n):
            kill_at(write, target, rng.uniform(0, 4 * max(took)))
            parts = len(os.listdir(folder)) - 1
            half += target.read_bytes() not in good
            mid_write += parts > 0
            litter = max(litter, parts)
        write[0](target)
        left = len(os.listdir(folder)) - 1
        row = (
            f"| {name} | {n} kills, {mid_write} with a part begun | {half} half files "
            f"| {litter} part at most; {left} after the next write |"
        )
        return row, half == 0 and litter <= 1 and left == 0


def story(command: str, *args: str) -> subprocess.Popen:
    "A story as a process that has begun to write it."
    # a background job of a shell ignores SIGINT
    default = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", default + command, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    process.stdout.read(1)
    return process


def interrupts(
    name: str, command: str, args: list[str], n: int, rng: random.Random
) -> tuple[str, bool]:
    outcomes = Counter()
    for _ in range(n):
        process = story(command, *args)
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=600)
        lines = err.decode().splitlines()
        said = [line for line in lines if "achieved tok/s" not in line or "interrupted" in line]
        if process.returncode in (0, -signal.SIGINT) and not said:
            outcomes["came after the story"] += 1
        elif (
            process.returncode == 130
            and len(said) == 1
            and said[0].endswith("llama2-nb: interrupted")
        ):
            outcomes["130, one line"] += 1
        else:
            outcomes[
                "traceback" if b"Traceback" in err else f"status {process.returncode}: {lines}"
            ] += 1
    row = (
        f"| {name} | {n} interrupts |"
        f" {', '.join(f'{k}: {v}' for k, v in sorted(outcomes.items()))} | |"
    )
    quiet = set(outcomes) <= {"came after the story", "130, one line"}
    return row, quiet and (
        outcomes["130, one line"] > 0 or "--count" not in args
    )  # one story may be short


def closed_pipes(
    name: str, command: str, args: list[str], n: int, rng: random.Random
) -> tuple[str, bool]:
    outcomes = Counter()
    for _ in range(n):
        process = story(command, *args)
        time.sleep(rng.uniform(0, 0.1))
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=600)
        process.stderr.close()
        complaint = [line for line in err.decode().splitlines() if "achieved tok/s" not in line]
        outcomes[
            (
                "silent"
                if not complaint
                else "traceback"
                if "Traceback" in err.decode()
                else complaint[0]
            )
        ] += 1
    row = (
        f"| {name} | {n} closed pipes |"
        f" {', '.join(f'{k}: {v}' for k, v in sorted(outcomes.items()))} | |"
    )
    return row, set(outcomes) == {"silent"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Kill, interrupt and close pipes at random moments."
    )
    parser.add_argument("--kills", type=int, default=300, help="of each writer")
    parser.add_argument(
        "--interrupts", type=int, default=50, help="of stories, and as many closed pipes"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, ok = random.Random(args.seed), True
    print("| what | tries | outcome | litter |\n|---|---|---|---|", flush=True)
    tests = {}
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for name, write in writers(Path(folder)).items() if args.kills else ():
            tests[name] = lambda row=(name, write): kills(*row, args.kills, rng)
        for name, command, options in [
            ("a story", COMMAND, ["generate", "-n", "0", "-s", "1"]),
            ("many stories", COMMAND, ["generate", "-n", "60", "-t", "1.9", "--count", "64"]),
            ("control: no `main`", NAIVE_COMMAND, []),
        ]:
            for test in (interrupts, closed_pipes) if args.interrupts else ():
                tests[name, test] = lambda test=test, row=(name, command, options): test(
                    *row, args.interrupts, rng
                )
        for name, test in tests.items():
            row, well = test()
            ok = ok and well != ("control" in str(name))
            print(row, flush=True)
    return int(not ok)


if __name__ == "__main__":
    sys.exit(main())
