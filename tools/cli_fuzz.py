"""Fuzz the command line: options in any combination, and small files of every kind, whole or
damaged.

Usage: python tools/cli_fuzz.py [--minutes N] [--seed N] [--keep DIR] [--plant]
Each case is a command in a process and a folder of its own, with text on standard input. It must
end within 30 s with status 0, or with 2 and one line on stderr, in less than 1 GiB more than an
idle process, and print no escape sequence. Anything else is a finding: it is printed once for each
kind, DIR keeps its folder, and the exit status is then 1. --plant is the control: it takes checks
out, and the exit status is 1 unless that is found.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "COLUMNS": "100",
}
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from llama2_nb import cli, scale
from llama2_nb.formats.convert import convert

# imported before any fork, or each case would import them anew
PRELOADED = "distributed huggingface_hub jinja2 tokenizers tqdm".split() + [
    "llama2_nb.bench",
    "llama2_nb.hub",
    "llama2_nb.formats.vocabularies",
    "llama2_nb.compiled.backend",
    "llama2_nb.storage.int8",
    "llama2_nb.training.train",
]
for _name in PRELOADED:
    import_module(_name)

SECONDS, MEMORY = 30, 2**30
WORDS = [
    "",
    "-",
    "--",
    "0",
    "1",
    "-1",
    "2",
    "3",
    "1.5",
    "1e400",
    "nan",
    "9" * 20,
    "x",
    "é🦊",
    "\udcff",
    "a\nb",
    "\x1b[2Jx",
    "a\0b",
    "word " * 300,
    "auto",
    "numpy",
    "llama2",
    "chatml",
    "tales",
    "no.bin",
    "no/where",
    "a/b@..",
    "stories15M",
    ".",
]
NUMBERS = [*"012345678999", "16", "40", "-1", "x", "", "1.5", "9" * 20, "2147483648"]
REALS = ["0", "0", "0.5", "0.5", "0.9", "0.9", "1", "1", "8", "-1", "nan", "1e400", "x"]
DEEP = b"[" * 100_000


def make_seeds(folder: Path) -> None:
    "A good file of every kind that a command reads."
    fixtures = ROOT / "nbs" / "fixtures"
    shutil.copy(fixtures / "gqa.bin", folder / "model.bin")
    shutil.copy(fixtures / "gqa_q80.bin", folder / "q80.bin")
    shutil.copy(fixtures / "tok512.bin", folder / "tok512.bin")
    convert(folder / "model.bin", folder / "folder", dtype="bfloat16")
    shutil.copy(folder / "folder" / "tokenizer.json", folder / "t.json")
    (folder / "prompts.txt").write_bytes(b"\xef\xbb\xbfThe fox\r\n\r\nOnce\r\n")
    (folder / "prompts.jsonl").write_text('"The fox"\n{"prompt": "a\\nb", "id": [1, {}]}\n')
    (folder / "talk.json").write_text(
        json.dumps(dict(messages=[dict(role="user", content="hi")], ids=[1, 300]))
    )
    (folder / "scheduler.json").write_text('{"address": "tcp://127.0.0.1:9", "id": "x"}')
    (folder / "template").write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    (folder / "book.txt").write_text(
        "\n\n".join(f"The {n} foxes saw {n * 7} owls." for n in range(300))
    )
    job = scale.new_job(str(folder / "model.bin"), seed=1, steps=5, backend="numpy")
    texts = ["hi"] * 2
    digest = scale.hashlib.sha256(b"".join(map(scale.to_line, texts))).hexdigest()[:16]
    with scale.Ledger(folder / "out.jsonl") as ledger:
        ledger.begin(job.settings() | dict(prompts=2, digest=digest))
        ledger.append(scale.write_batch(job, list(enumerate(texts))).records)


def change_json(value, rng: random.Random):
    "A JSON value with one part of it replaced."
    odd = [
        None,
        True,
        0,
        -1,
        1.5,
        2**63,
        "",
        "x",
        "\x1b[2J",
        [],
        {},
        [[]],
        {"a": []},
        "a" * 3000,
        [1] * 50,
    ]
    if rng.random() < 0.15 or not isinstance(value, (list, dict)) or not value:
        return rng.choice(odd)
    value = value.copy()
    if isinstance(value, dict):
        name = rng.choice(list(value))
        if rng.random() < 0.2:
            value.pop(name)
        else:
            value[name] = change_json(value[name], rng)
    else:
        place = rng.randrange(len(value))
        if rng.random() < 0.2:
            value.pop(place)
        else:
            value[place] = change_json(value[place], rng)
    return value


def damage(path: Path, rng: random.Random) -> str:
    "Change a file of a case, or put something else in its place; says how."
    assert "cli_fuzz-" in str(path), (
        path
    )  # nothing else is touched, whatever the words of a command are
    data = path.read_bytes()
    how = rng.choice(
        [
            "json",
            "json",
            "json",
            "flip",
            "cut",
            "insert",
            "empty",
            "deep",
            "other",
            "folder",
            "loop",
            "nul",
        ]
    )
    if how == "json":
        lines = data.split(b"\n") if path.suffix == ".jsonl" else [data]
        place = rng.randrange(len(lines))
        try:
            lines[place] = json.dumps(change_json(json.loads(lines[place]), rng)).encode()
        except ValueError:
            how = "flip"
        else:
            data = b"\n".join(lines)
    if how == "flip" and data:
        data = bytearray(data)
        for _ in range(rng.choice([1, 1, 3, 30])):
            at = rng.randrange(min(len(data), rng.choice([64, 400, len(data)])))
            data[at] = rng.choice([0, 255, data[at] ^ 1 << rng.randrange(8)])
    if how == "cut":
        data = data[: rng.randrange(len(data) + 1)]
    if how == "insert":
        at = rng.randrange(len(data) + 1)
        data = (
            data[:at]
            + rng.choice(
                [b"\n", b"\0", b"\xff", b"\x1b[2J", b"{", b'"', b"\r\n", DEEP[:2000], "é".encode()]
            )
            + data[at:]
        )
    if how == "empty":
        data = b""
    if how == "deep":
        lines = data.split(b"\n")
        lines[rng.randrange(len(lines))] = rng.choice(
            [DEEP, b'{"a":' * 50_000, b'{"llama2_nb": ' + DEEP]
        )
        data = b"\n".join(lines)
    if how == "nul":
        data = bytes(rng.choice([1, 28, 300, 5000]))
    path.unlink()
    if how == "other":
        others = [p for p in path.parent.iterdir() if p.is_file()]
        data = rng.choice(others).read_bytes() if others else b"x"
    if how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path.name)
    else:
        path.write_bytes(data)
    return how


def options_of(rng: random.Random) -> tuple[str, list[str], dict[str, list[str]]]:
    "A command, the words it always gets, and values for its options."
    models = (
        ["model.bin"] * 4
        + ["folder"] * 4
        + ["q80.bin", "q80.bin", "tales", "t.json", "prompts.txt", "no.bin", "."]
    )
    vocabularies = ["tok512.bin"] * 4 + ["folder", "folder", "t.json", "model.bin", ".", "no.bin"]
    run = {
        "-m": models,
        "-z": vocabularies,
        "-t": REALS,
        "-p": REALS,
        "-s": NUMBERS,
        "-n": NUMBERS,
        "--positions": NUMBERS,
        "--backend": ["numpy", "auto", "auto", "x"],
        "--threads": NUMBERS[:1] + ["x", "257"],
    }
    text = {None: WORDS, "-i": WORDS}
    command = rng.choice(
        ["generate"] * 5
        + ["chat"] * 4
        + ["out"] * 2
        + ["tokenize"] * 2
        + ["quantize", "inspect", "bench", "train", "convert", "download", "sing"]
    )
    targets = [
        "new.bin",
        "model.bin",
        "folder",
        "a/loop",
        "talk.json",
        "no/x.bin",
        "\udcff.bin",
        "x" * 300,
        "",
        "a\0b",
    ]
    if command == "generate":
        files = ["prompts.txt", "prompts.jsonl", "-", "folder", "model.bin"]
        words = ["--prompts", rng.choice(files[:2])] if rng.random() < 0.3 else []
        of_out = (
            {"--workers": NUMBERS, "--scheduler": WORDS, "--batch-size": NUMBERS}
            if rng.random() < 0.1
            else {}
        )
        return (
            command,
            words,
            run
            | text
            | of_out
            | {
                "--count": ["0", "1", "2", "3", "x"],
                "--prompts": files,
                "--progress": [None],
            },
        )
    if command == "out":  # without new processes: what there is to do is done, or nobody answers
        words = [
            "hi",
            "--count",
            "2",
            "-m",
            "model.bin",
            "-z",
            "tok512.bin",
            "-n",
            "5",
            "--backend",
            "numpy",
            "--out",
            "out.jsonl",
        ]
        files = ["scheduler.json"] * 3 + [
            "talk.json",
            "127.0.0.1:9",
            "tls://127.0.0.1:9",
            rng.choice(WORDS),
        ]
        words += ["--scheduler", rng.choice(files)]
        return (
            "generate",
            words,
            {
                "-s": NUMBERS,
                "--positions": NUMBERS,
                "-t": REALS,
                "--progress": [None],
                "--batch-size": NUMBERS,
            },
        )
    if command == "chat":
        words = ["--history", "talk.json"] if rng.random() < 0.4 else []
        return (
            command,
            words,
            run
            | {
                "-i": WORDS,
                "-y": WORDS,
                "--history": ["talk.json", "out.jsonl", "model.bin", "."],
                "--template": [
                    "template",
                    "llama2",
                    "llama3",
                    "chatml",
                    "talk.json",
                    "folder",
                    "x",
                    "",
                ],
            },
        )
    if command == "tokenize":
        return (
            command,
            [rng.choice(WORDS)],
            {
                "-m": models,
                "-z": vocabularies,
                "--ids": [None],
                "--no-bos": [None],
                "--eos": [None],
            },
        )
    if command == "inspect":
        return command, [], {None: models, "-m": models, "--check-values": [None]}
    if command == "quantize":
        return command, [rng.choice(models), rng.choice(targets)], {"--group-size": NUMBERS}
    if command == "convert":
        return (
            command,
            [rng.choice(models), rng.choice(targets)],
            {
                "--version": NUMBERS,
                "--dtype": ["float16", "x", ""],
                "--group-size": NUMBERS,
                "--positions": NUMBERS,
            },
        )
    if command == "bench":
        return (
            command,
            [
                rng.choice(models),
                "--rounds",
                "1",
                "-n",
                "2",
                "--prompt-tokens",
                "2",
                "--backend",
                "numpy",
            ],
            {
                "--peer": ["./no", "prompts.txt", "/bin/false", "/bin/true", "."],
                "--json": [None],
                "--int8": [None],
                "--threads": NUMBERS,
            },
        )
    if command == "train":
        small = (
            "--dim 8 --hidden-dim 8 --layers 1 --heads 2 --kv-heads 1 --vocab-size 330 --length 8"
            " --batch 1 --micro 1 -n 1 --threads 1"
        )
        return (
            command,
            [
                "--out",
                rng.choice(["new", "folder", "book.txt", "", "."]),
                "--data",
                rng.choice(["book.txt", "prompts.txt", "model.bin", "."]),
                *small.split(),
            ],
            {
                "--start": models,
                "-z": vocabularies,
                "-s": NUMBERS,
                "--lr": REALS,
                "--clip": REALS,
                "--warmup": NUMBERS,
                "--decay": REALS,
                "--heads": NUMBERS,
            },
        )
    if command == "download":
        return command, [rng.choice(WORDS)], {"--dry-run": [None]}
    return command, [rng.choice(WORDS)], {"--version": [None], "--help": [None]}


def make_case(folder: Path, seeds: Path, rng: random.Random) -> tuple[list[str], bytes, list[str]]:
    "A folder with files, some of them damaged; arguments, standard input, and what was damaged."
    shutil.copytree(seeds, folder)
    (folder / "a").mkdir()
    (folder / "a" / "loop").symlink_to("loop")
    command, args, options = options_of(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 4])):
        name = rng.choice(list(options))
        value = rng.choice(
            options[name] if rng.random() < 0.93 else WORDS + ["talk.json", "prompts.jsonl"]
        )
        args += [word for word in (name, value) if word is not None]
    names = [
        word
        for word in args
        if word
        and "\0" not in word
        and len(word) < 200
        and not os.path.isabs(word)
        and ".." not in word
    ]
    used = [path for path in (folder / name for name in names) if path.is_file()]
    used += list((folder / "folder").glob("*")) if "folder" in args else []
    used = list(dict.fromkeys(used))
    damaged = []
    for path in rng.sample(used, min(len(used), rng.choice([0, 0, 1, 1, 1, 2]))):
        damaged.append(f"{path.relative_to(folder)}: {damage(path, rng)}")
    lines = [
        b"Hello!",
        b"/reset",
        b"/save talk2.json",
        b"/save talk.json",
        b"/save model.bin",
        b"/save folder",
        b"/save a\0b",
        b"/save ",
        b"\xff\xfe",
        b"\xef\xbb\xbfHi\r",
        b"a\0b",
        b"/\x1b[2J",
        b"word " * 400,
        b"",
        "é".encode(),
        b"/save a/loop",
    ]
    typed = b"\n".join(rng.choices(lines, k=rng.randrange(5))) + rng.choice([b"", b"\n", b"\r\n"])
    return [command, *args], typed, damaged


def run(args: list[str], typed: bytes, folder: Path, out: Path) -> tuple[int, float, int, str, str]:
    "A case in a process of its own: exit status, seconds, KiB of memory, stdout, stderr."
    names = [out / name for name in ("stdin", "stdout", "stderr")]
    names[0].write_bytes(typed)
    began, child = time.monotonic(), os.fork()
    if child == 0:
        os.setsid()
        os.chdir(folder)
        for number, name in enumerate(names):
            os.dup2(
                os.open(name, os.O_RDONLY if not number else os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
                number,
            )
        resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))
        resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
        sys.stdin = io.TextIOWrapper(open(0, "rb"), encoding="utf-8", newline="\n")
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(open(n, "wb"), encoding="utf-8", errors="strict") for n in (1, 2)
        )
        sys.setrecursionlimit(1000)
        status = 1
        try:
            cli.main(args)
        except SystemExit as e:
            status = e.code
        except BaseException:
            import traceback

            traceback.print_exc()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            status = 1
        os._exit(status if isinstance(status, int) else 1)
    while True:
        pid, code, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() - began > SECONDS:
            os.killpg(child, signal.SIGKILL)
            pid, code, usage = os.wait4(child, 0)
            break
        time.sleep(0.002)
    texts = [name.read_bytes().decode("utf-8", "replace") for name in names[1:]]
    return os.waitstatus_to_exitcode(code), time.monotonic() - began, usage.ru_maxrss, *texts


def judge(
    args: list[str], status: int, seconds: float, memory: int, out: str, err: str
) -> str | None:
    "What is wrong with an outcome; None: nothing."
    lines = [line for line in err.splitlines() if not line.startswith("llama2-nb: warning: ")]
    if seconds > SECONDS:
        return "no end"
    if "Traceback" in err or status == 1:
        return f"traceback: {lines[-1] if lines else ''}"
    if status == 70:
        return lines[-1] if lines else "70 without a word"
    if status not in (0, 2):
        return f"exit status {status}: {lines[-1] if lines else ''}"
    if memory * 1024 > MEMORY:
        return f"memory: {memory // 1024} MiB"
    if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", out + err):
        return f"control character in the output of {args[0]}"
    if "--progress" in args:
        return None
    if strange := [line for line in lines if not line.startswith("llama2-nb: ")]:
        return f"strange line: {strange[0]}"
    if status == 2 and (not lines or len(lines) > 1 and args[0] not in ("chat", "train")):
        return f"{len(lines)} lines for a refusal: {lines}"
    return None


def plant() -> None:
    "The control: some checks less."
    scale._parse = lambda line, where: json.loads(line)
    scale.scheduler_address = lambda path: (
        json.loads(Path(path).read_text())["address"] if path.endswith(".json") else path
    )
    cli._saved = lambda path: tuple(json.load(open(path))[name] for name in ("messages", "ids"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the command line.")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="a folder for the files of findings")
    parser.add_argument(
        "--plant", action="store_true", help="the control: take checks out, which must be found"
    )
    options = parser.parse_args()
    if options.plant:
        plant()
    work = Path(tempfile.mkdtemp(prefix="cli_fuzz-"))
    tempfile.tempdir = str(work / "tmp")  # where a chat is rescued
    os.environ["TMPDIR"] = tempfile.tempdir
    for name in "seeds", "io", "tmp":
        (work / name).mkdir()
    make_seeds(work / "seeds")
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        cli.main(["sing"])  # what is done once
    gc.collect()
    gc.freeze()
    began, n, counts, findings, sentences, peak = time.monotonic(), 0, Counter(), {}, set(), 0
    try:
        while time.monotonic() - began < 60 * options.minutes and not (options.plant and findings):
            rng, n = random.Random(f"{options.seed}-{n}"), n + 1
            case = work / "case"
            args, typed, damaged = make_case(case, work / "seeds", rng)
            status, seconds, memory, out, err = run(args, typed, case, work / "io")
            wrong, peak = judge(args, status, seconds, memory, out, err), max(peak, memory)
            counts[args[0], "findings" if wrong else status] += 1
            sentences |= {
                re.sub(r"\d+|'[^']*'|\S*/\S*", "N", line)[:60] for line in err.splitlines()
            }
            kind = wrong and re.sub(r"\d+|'[^']*'|\S*/\S*", "N", wrong)[:160]
            if wrong and kind not in findings:
                findings[kind] = n
                print(
                    f"{n}: {wrong[:400]}\n   {args}\n   damaged: {damaged}; typed: {typed[:80]}",
                    flush=True,
                )
                if options.keep:
                    shutil.copytree(case, options.keep / f"{options.seed}-{n}", symlinks=True)
            shutil.rmtree(case)
            for file in (work / "tmp").iterdir():
                file.unlink() if file.is_file() else shutil.rmtree(file)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(
        f"\nseed {options.seed}: {n} commands in {(time.monotonic() - began) / 60:.1f} minutes,"
        f" {len(sentences)} kinds of lines on stderr, peak memory {peak // 1024} MiB\n\n| command |"
        " exit 0 | exit 2 | findings |\n|---|---|---|---|"
    )
    for command in sorted({name for name, _ in counts}):
        print(
            f"| {command} | "
            + " | ".join(str(counts[command, what]) for what in (0, 2, "findings"))
            + " |"
        )
    if options.plant:
        print("\nthe planted faults were", "found" if findings else "NOT found")
    return int(bool(findings) != options.plant)


if __name__ == "__main__":
    sys.exit(main())
