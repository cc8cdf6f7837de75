"""Ten thousand stories through `llama2-nb generate --out`, disturbed on purpose, against the same
stories told one by one.

Usage: python tools/scale_test.py [--stories N] [--steps N] [--workers N]
       python tools/scale_test.py --speed [--shape 15M] [--rounds N] [--quiet SHARE]

The run is begun, one of its workers is killed, the run is stopped as by Ctrl-C; it is begun again,
killed as a whole, and its file cut in the middle of a line; then it runs to its end. Every record
must be there once, and equal what `Llama.generate` writes, byte for byte. --speed measures one
worker and two in turns, on a random model. POSIX only.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

from llama2_nb.bench import SHAPES, write_random
from llama2_nb.core import Llama
from llama2_nb.scale import Job, new_job, open_client, run_batches, to_line

SEED = 5
COMMAND = [
    sys.executable,
    "-c",
    "from llama2_nb.cli import main; main()",
    "generate",
    "-s",
    str(SEED),
]


def make_prompts(n: int) -> list[str]:
    "Beginnings of stories, all different; one in a hundred can't be told."
    who = ["fox", "cat", "dog", "girl", "boy", "king", "old man", "bird", "rabbit", "dragon"]
    how = [
        "The little {}",
        "Once upon a time there was a {}",
        "One day, a {}",
        "In the forest, the {}",
        "A brave {}",
    ]
    prompts = [f"{how[i % 5].format(who[i // 5 % 10])} and {i}" for i in range(n)]
    prompts[50::200] = ["a NUL \0 in the text"] * len(prompts[50::200])
    prompts[150::200] = ["too long " * 600] * len(prompts[150::200])
    return prompts


def one_by_one(prompts: list[str], steps: int, seed: int = SEED) -> list[bytes]:
    "The lines that must come out: no batch, no process, no Dask."
    llama, lines = Llama.load(backend="numba", threads=1), []
    for i, prompt in enumerate(prompts):
        record = dict(index=i, prompt=prompt, seed=seed + i)
        try:
            record["text"] = llama.generate(prompt, steps=steps, seed=seed + i)
            record["cut"] = len(
                list(llama.tokens(prompt, steps=steps, seed=seed + i))
            ) == llama.limit(steps)
        except ValueError as e:
            record["error"] = str(e)
        lines.append(to_line(record))
    return lines


def text_of(line: bytes) -> str | None:
    return json.loads(line).get("text")


class Run:
    "The command as a process with its own group, as a shell starts it."

    def __init__(self, args: list[str], out: Path):
        self.out, self.process = (
            out,
            subprocess.Popen(
                COMMAND + args, stderr=subprocess.PIPE, text=True, start_new_session=True
            ),
        )

    def wait_for(self, lines: int) -> None:
        while self.process.poll() is None and (
            not self.out.exists() or self.out.read_bytes().count(b"\n") < lines
        ):
            time.sleep(0.02)
        assert self.process.poll() is None, (
            f"ended before it had {lines} lines: {self.process.stderr.read()}"
        )

    def workers(self) -> list[psutil.Process]:
        def is_one(p: psutil.Process) -> bool:
            try:
                return "spawn_main" in " ".join(p.cmdline())
            except psutil.Error:
                return False  # gone already

        return [p for p in psutil.Process(self.process.pid).children() if is_one(p)]

    def end(self) -> tuple[int, str]:  # exit status, stderr
        _, text = self.process.communicate(timeout=600)
        return self.process.returncode, text


def disturb(n: int, steps: int, workers: int) -> None:
    """The test: prints what happened, raises `AssertionError` if a record is missing, twice, or
    another.
    """
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a job in the background has it ignored, and so would its children
    prompts = make_prompts(n)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "prompts.jsonl", Path(folder) / "stories.jsonl"
        source.write_bytes(b"".join(map(to_line, prompts)))
        args = [
            "--prompts",
            str(source),
            "--out",
            str(out),
            "-n",
            str(steps),
            "--workers",
            str(workers),
            "--batch-size",
            str(min(64, max(1, n // 50))),
        ]
        began = time.perf_counter()

        run = Run(args, out)
        run.wait_for(1 + n // 4)
        victim = run.workers()[0]
        victim.kill()
        run.wait_for(1 + n // 2)
        os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does: to all of them
        status, said = run.end()
        assert (
            status == 130 and said.endswith("llama2-nb: interrupted\n") and "Traceback" not in said
        ), (status, said)
        there = out.read_bytes().count(b"\n") - 1
        print(f"killed worker {victim.pid}, stopped at {there} of {n}", flush=True)

        run = Run(args, out)
        run.wait_for(max(there + 2, 1 + 3 * n // 4))
        orphans = run.workers()
        run.process.kill()  # nobody tells the workers
        run.end()
        assert not psutil.wait_procs(orphans, timeout=300)[1], "workers outlive the command"
        os.truncate(
            out, out.stat().st_size - 9
        )  # as if the power had failed in the middle of a line
        there = out.read_bytes().count(b"\n") - 1
        print(f"killed as a whole, {there} of {n} and half a line", flush=True)

        status, said = Run(args, out).end()
        assert status == 0, said
        print(said.strip().replace(folder + os.sep, ""), flush=True)
        whole = out.read_bytes()
        status, said = Run(args, out).end()
        assert status == 0 and out.read_bytes() == whole, said
        took = time.perf_counter() - began

        began = time.perf_counter()
        expected = one_by_one(prompts, steps)
        print(f"{took:.0f} s with the disturbances, {time.perf_counter() - began:.0f} s one by one")
        lines = sorted(whole.splitlines(True)[1:], key=lambda line: json.loads(line)["index"])
        assert len(lines) == n, f"{len(lines)} records for {n} prompts"
        assert lines == expected, next(pair for pair in zip(lines, expected) if pair[0] != pair[1])
        # a control: with their neighbours' seeds
        others = one_by_one(prompts[:100], steps, SEED + 1)
        assert list(map(text_of, lines[:100])) != list(map(text_of, others))
        errors = sum(b'"error": ' in line for line in lines)
        assert errors == len(prompts[50::100])
        print(f"{n} records, {errors} of them errors: each once, each byte as one by one")


def cpu_seconds() -> tuple[float, float]:
    """What the machine's cores have done so far, and how much of that was this process and its
    workers.
    """
    everything, me = psutil.cpu_times(), psutil.Process()
    mine = sum(
        p.cpu_times().user + p.cpu_times().system for p in (me, *me.children(recursive=True))
    )
    return (
        sum(everything)
        - everything.idle
        - getattr(everything, "iowait", 0)
        - getattr(everything, "guest", 0),
        mine,
    )


class Timed(NamedTuple):
    wall: float  # seconds until the last result is here
    busy: float  # seconds that workers spent in tasks
    others: float  # share of the machine's cores that other programs took meanwhile


def timed(client, job: Job, prompts: list[str], size: int) -> Timed:
    batches = [list(enumerate(prompts))[i : i + size] for i in range(0, len(prompts), size)]
    began, (all_before, mine_before) = time.perf_counter(), cpu_seconds()
    tasks = list(run_batches(client, job, batches))
    wall, (all_after, mine_after) = time.perf_counter() - began, cpu_seconds()
    others = (all_after - all_before - mine_after + mine_before) / wall / os.cpu_count()
    return Timed(wall, sum(t.ended - t.began for t in tasks), others)


def speed(shape: str, rounds: int, steps: int, n: int, size: int, quiet: float) -> None:
    """One worker and two in turns: both write all prompts in each round. Medians of the rounds
    that nobody disturbed.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / f"{shape}.bin"
        write_random(path, SHAPES[shape])
        job = new_job(path, steps=steps, temperature=0, seed=1)
        clients = {w: stack.enter_context(open_client(workers=w)) for w in (1, 2)}
        for w, client in clients.items():
            timed(client, job, ["a"] * 2 * w, 1)  # each worker loads the model
        seen = []
        for _ in range(rounds):
            seen.append(
                [
                    timed(client, job, [f"word{i}" for i in range(n)], size)
                    for client in clients.values()
                ]
            )
            one, two = seen[-1]
            print(
                f"{one.wall:6.2f} s, {two.wall:6.2f} s: {one.wall / two.wall:.2f}; others took"
                f" {one.others:.1%}, {two.others:.1%}",
                flush=True,
            )
    kept = [pair for pair in seen if max(t.others for t in pair) < quiet]
    print(
        f"{shape}, {n} texts of {steps} tokens, {size} in a task: {len(kept)} of {rounds} rounds"
        f" with less than {quiet:.0%} taken by others"
    )
    if not kept:
        return
    for w, times in zip((1, 2), zip(*kept)):
        wall, engine = (
            median(t.wall for t in times),
            median(1 - t.busy / (w * t.wall) for t in times),
        )
        print(
            f"{w}: {n * steps / wall:,.0f} tokens/s, {engine:.1%} of the workers' time is not"
            " writing"
        )
    ratios = sorted(one.wall / two.wall for one, two in kept)
    print(
        f"two workers / one: {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); beside"
        f" another, a task takes {median(two.busy / one.busy for one, two in kept) - 1:.0%} longer"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories", type=int, help="how many; 10,000, or with --speed 256")
    parser.add_argument("--steps", type=int, default=64, help="positions of each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--shape", choices=SHAPES, default="15M")
    parser.add_argument("--size", type=int, default=16, help="texts in a task, with --speed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--quiet",
        type=float,
        default=0.05,
        help="share that others may take in a round that counts",
    )
    args = parser.parse_args()
    if args.speed:
        speed(args.shape, args.rounds, args.steps, args.stories or 256, args.size, args.quiet)
    else:
        disturb(args.stories or 10_000, args.steps, args.workers)
