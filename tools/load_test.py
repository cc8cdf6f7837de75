"""One model under load: threads, processes, ten thousand stories.

Usage: python tools/load_test.py [--stories N] [--threads N] [--each N] [--only TEST] [--leak]
Prints a row of Markdown for each test; exits with 1 if one of them failed. Memory is counted on
Linux alone. --leak is the control: every loaded model is kept, which must be noticed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from llama2_nb.bench import SHAPES, write_random
from llama2_nb.core import Llama

LIMIT = 5.0  # MB by which the memory of a process may differ in the course of its stories


def private() -> float:  # MB that no other process shares
    with open("/proc/self/smaps_rollup") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private")) * 1024 / 1e6


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def mappings(name: str = ".bin") -> int:
    with open("/proc/self/maps") as f:
        return sum(line.rstrip().endswith(name) for line in f)


def threads(n: int, backend: str, each: int) -> tuple[str, bool]:
    "n threads tell the same stories from one loaded model that it tells one by one."
    llama = Llama.load(backend=backend)

    def tell(seed: int) -> str:
        return llama.generate("The", seed=seed, steps=80)

    seeds = range(1, n * each + 1)
    alone = [tell(seed) for seed in seeds]
    with ThreadPoolExecutor(n) as pool:
        together = list(pool.map(tell, seeds))
    same, shifted = (
        sum(a == b for a, b in zip(alone, together)),
        sum(a == b for a, b in zip(alone, together[1:])),
    )
    return (
        (
            f"| {n} threads, one model, {backend} | {len(alone)} stories | {same} the same as one"
            f" by one (control, each with the next one's: {shifted}) |"
        ),
        same == len(alone) and shifted < 3,
    )


READER = """
import sys
sys.path.insert(0, sys.argv[3])
from load_test import private
from llama2_nb.checkpoint import Checkpoint
before = private()
weights = Checkpoint.open(sys.argv[1], mmap=sys.argv[2] == "map").weights
total = sum(float(w.sum()) for w in vars(weights).values())
print("ready", flush=True)
sys.stdin.readline()  # until the other process has read everything, too
print(private() - before, flush=True)
sys.stdin.readline()
"""


def processes() -> tuple[str, bool]:
    "Two processes read all weights of one file of 61 MB."
    grown = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "15M.bin"
        write_random(path, SHAPES["15M"])
        for mode in "map", "read":
            command = [sys.executable, "-c", READER, str(path), mode, str(Path(__file__).parent)]
            both = [
                subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                for _ in range(2)
            ]
            for p in both:
                assert p.stdout.readline() == "ready\n"
            for p in both:
                p.stdin.write("\n")
                p.stdin.flush()
            grown[mode] = [float(p.stdout.readline()) for p in both]
            for p in both:
                p.communicate("\n")
        size = path.stat().st_size / 1e6
    mapped, read = (" and ".join(f"{g:.1f}" for g in grown[mode]) for mode in ("map", "read"))
    return (
        (
            f"| two processes, one file of {size:.0f} MB | all weights read | unique memory of"
            f" each: {mapped} MB (control, mmap=False: {read} MB) |"
        ),
        max(grown["map"]) < 5 and min(grown["read"]) > size - 5,
    )


def stories(n: int, leak: bool) -> tuple[str, bool]:
    "Load the model, tell a story, let go of both; n times in a row."
    kept, memory, counts, began, settled = [], [], [], time.perf_counter(), max(20, n // 20)
    for i in range(n):
        llama = Llama.load(backend="numpy")
        text = llama.generate(seed=i + 1, steps=16)
        assert text
        if leak:
            kept.append(llama)
        del llama
        if i >= settled and i % max(1, n // 100) == 0:
            memory.append(private())
            counts.append((handles(), mappings()))
    grown, opened = max(memory) - min(memory), counts[-1]
    row = (
        f"| {n:,} stories, the model loaded anew for each | {time.perf_counter() - began:.0f} s "
        f"| unique memory {min(memory):.1f} to {max(memory):.1f} MB after the first {settled:,}; "
        f"handles {counts[0][0]} → {opened[0]}; maps of model files {counts[0][1]} → {opened[1]} |"
    )
    return row, grown < LIMIT and counts[0] == opened and opened[1] == 0


def main() -> int:
    parser = argparse.ArgumentParser(description="One model under load.")
    parser.add_argument("--stories", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--each", type=int, default=12, help="stories of each thread")
    parser.add_argument("--only", choices=["stories", "processes", "threads"])
    parser.add_argument("--leak", action="store_true", help="the control: keep every loaded model")
    args = parser.parse_args()
    print("| what | how much | outcome |\n|---|---|---|", flush=True)
    ok, backends = True, ["numpy"] + ["numba"] * (find_spec("numba") is not None)
    tests = {
        "stories": [lambda: stories(args.stories, args.leak)],
        "processes": [processes],
        "threads": [lambda b=b: threads(args.threads, b, args.each) for b in backends],
    }
    if sys.platform != "linux":
        print("| memory, handles, maps | skipped: only Linux tells them | |")
        del tests["stories"], tests["processes"]
    for test in [
        test for name, group in tests.items() if args.only in (None, name) for test in group
    ]:
        row, well = test()
        ok = ok and well
        print(row + ("" if well else " NOT AS IT MUST BE |"), flush=True)
    return int(not ok)


if __name__ == "__main__":
    sys.exit(main())
