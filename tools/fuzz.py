"""Fuzz a loader, guided by coverage: atheris changes files for as long as it finds new ways through
the code.

Usage: python tools/fuzz.py TARGET --seconds N --corpus DIR     (needs: pip install -e '.[fuzz]')
       python tools/fuzz.py --table --corpus DIR                sums of all runs so far, as a table
TARGET: checkpoint (files of version 0 as seeds), versioned (1 and 2: the long header, int8),
tokenizer, or folder (one file of a Hugging Face folder at a time; the other ones are good).
Each file goes to a judge of tools/contract.py: the right model or the right refusal, anything else
is a finding. Findings lie in DIR/TARGET/findings, and the exit status is then 1. A run goes on
where the last one with the same DIR stopped.
"""

import argparse
import copy
import hashlib
import json
import mmap
import os
import random
import re
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path

TARGETS = "checkpoint", "versioned", "tokenizer", "folder"


def reweigh(data: bytes, rng: random.Random) -> bytes:
    "A checkpoint with some of its weights or scales changed."
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if len(data) > 32:
            struct.pack_into(
                "<f", data, rng.randrange(28, len(data) - 3), rng.choice(contract.FLOATS)
            )
    return bytes(data)


def reshape(data: bytes, rng: random.Random) -> bytes:
    "A checkpoint with a number of its header changed, and, mostly, as long as the new header says."
    if rng.random() < 0.5:
        return reweigh(data, rng)
    data = bytearray(data.ljust(28, b"\0"))
    versioned = data[:4] == b"24ka" and len(data) > 44
    for _ in range(rng.randint(1, 3)):
        place = rng.choice([4, *range(8, 36, 4), 37]) if versioned else 4 * rng.randrange(7)
        value = rng.choice(contract.NUMBERS[1:8] if rng.random() < 0.8 else contract.NUMBERS)
        struct.pack_into("<i", data, place, value)
    if versioned and rng.random() < 0.2:
        data[36] = rng.choice([0, 1, 1, 2])
    data = contract.fit(bytes(data), bytes([rng.randrange(60)]))
    if rng.random() < 0.1:
        data = (data + bytes(4))[: len(data) + rng.choice([-4, -1, 1, 4])]
    return data


def retoken(data: bytes, rng: random.Random) -> bytes:
    "A vocabulary with tokens after the 259 fixed ones added, doubled, dropped or changed."
    entries, position = [], 4
    while position + 8 <= len(data) and len(entries) < 400:
        length = struct.unpack_from("<I", data, position + 4)[0]
        entries.append(data[position : position + 8 + length])
        position += 8 + length
    fixed, free = entries[:259], entries[259:]
    for _ in range(rng.randint(1, 4)):
        anything = bytes(rng.randrange(256) for _ in range(rng.randint(1, 5)))
        piece = rng.choice(
            [
                b" ",
                b"O",
                b"n",
                b"On",
                b"<0x41>",
                b"<0xG1>",
                b"\xff",
                b"\xc3",
                b"\xa9",
                b"\0",
                anything,
            ]
        )
        entry = struct.pack("<fI", rng.choice([*contract.FLOATS, -2e10]), len(piece)) + piece
        if free and rng.random() < 0.4:
            free[rng.randrange(len(free))] = entry
        elif len(free) > 1 and rng.random() < 0.2:
            free.pop(rng.randrange(len(free)))
        else:
            free.insert(rng.randint(0, len(free)), entry)
    if fixed and free and rng.random() < 0.05:
        fixed[rng.randrange(len(fixed))] = rng.choice(free)
    return data[:4] + b"".join(fixed + free)


VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    3,
    300,
    2**31,
    2**63,
    10**30,
    1e400,
    float("nan"),
    0.5,
    "",
    "x",
    "\u2581",
    "\x1b[31m",
    "\ud800",
    [],
    {},
    [1],
    ["x"],
    {"x": 1},
    "<|x|>",
    "A" * 300,
]


def places(
    value, path=()
) -> list[tuple]:  # where a value could be replaced: keys and indices from the outside in
    "All places of a JSON value."
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path] * bool(path) + [
        place for key, part in items for place in places(part, (*path, key))
    ]


def reword(data: bytes, rng: random.Random) -> bytes:
    """A file of a folder with a value of its JSON replaced, left out, or put elsewhere; others
    with a byte changed.
    """
    name, text = data[:1], data[1:]
    start = text[: 8 if text[8:9] == b"{" else 0]  # of safetensors
    try:
        value, end = json.JSONDecoder().raw_decode(
            text[len(start) :].decode("utf-8", "surrogateescape")
        )
    except ValueError:
        changed = bytearray(text)
        for _ in range(rng.randint(1, 3)):
            if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        return name + bytes(changed)
    rest = (
        text[len(start) :]
        .decode("utf-8", "surrogateescape")[end:]
        .encode("utf-8", "surrogateescape")
    )
    for _ in range(rng.randint(1, 2)):
        where = places(value)
        if not where:
            break
        *outer, last = rng.choice(where)
        parent, source = value, value
        for key in outer:
            parent = parent[key]
        for key in rng.choice(where):
            source = source[key]
        kind = rng.random()
        if kind < 0.6:
            parent[last] = copy.deepcopy(rng.choice(VALUES))
        elif kind < 0.8:
            parent[last] = copy.deepcopy(source)
        elif isinstance(parent, dict) and kind < 0.9:
            parent[rng.choice(["x", "", str(last) + "_token"])] = parent.pop(last)
        else:
            del parent[last]
    body = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return name + (struct.pack("<Q", len(body)) if start else b"") + body + rest


def take_out(target: str) -> None:
    "Remove one check of the loader."
    from llama2_nb import config, tokenizer
    from llama2_nb.formats import llama2c, vocabularies as dialogue

    module, name = {
        "checkpoint": (config, "check_config"),
        "versioned": (llama2c, "check_scales"),
        "tokenizer": (tokenizer, "check_pieces"),
        "folder": (dialogue, "short"),
    }[target]
    setattr(module, name, lambda *args: args[0] if target == "folder" else None)


def fuzz(
    target: str, folder: Path, seconds: int, counters: mmap.mmap, work: str, plant: bool
) -> None:
    "In a process of its own: never returns."
    import atheris

    global contract
    with atheris.instrument_imports(include=["llama2_nb", "contract"]):
        import contract

        # instrumented before a judge asks for them
        from llama2_nb.formats import llama2c  # noqa: F401

        if target == "folder":
            from llama2_nb.formats import huggingface, templates, vocabularies  # noqa: F401
    if plant:
        take_out(target)
    judge = {"tokenizer": contract.judge_vocabulary, "folder": contract.judge_folder}.get(
        target, contract.judge_checkpoint
    )
    seeds = contract.seed_files()
    if target == "folder":
        contract.make_folder(os.path.join(work, "folder"))
        seeds = {
            target: [
                bytes([i]) + Path(work, "folder", name).read_bytes()
                for i, name in enumerate(contract.FILES)
            ]
        }
    for i, seed in enumerate(seeds[target]):
        if not (folder / "corpus" / f"seed{i}").exists():
            (folder / "corpus" / f"seed{i}").write_bytes(seed)
    path, counts = os.path.join(work, "folder" if target == "folder" else "file.bin"), [0, 0]
    known = (
        set((folder / "refusals.txt").read_text().splitlines())
        if (folder / "refusals.txt").exists()
        else set()
    )

    def one(data: bytes) -> None:
        if target != "folder":
            with open(path, "wb") as f:
                f.write(data)
        try:
            said = judge(path, data)
        except BaseException:
            (folder / "findings" / hashlib.sha1(data).hexdigest()[:12]).write_bytes(data)
            raise
        counts[said not in ("model", "vocabulary")] += 1
        counters[:16] = struct.pack("<2Q", *counts)
        if said.startswith(path):
            kind = re.sub(
                r"b'.*?'(?=, found|$)|-?\d+(\.\d+)?(e[+-]\d+)?", "N", said[len(path) + 2 :]
            )
            if kind not in known:
                known.add(kind)
                with open(folder / "refusals.txt", "a") as f:
                    f.write(kind + "\n")

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return atheris.Mutate(data, max_size)
        return {"tokenizer": retoken, "folder": reword}.get(target, reshape)(data, rng)[:max_size]

    options = dict(
        max_total_time=seconds,
        max_len=20000 if target == "folder" else contract.LONGEST,
        rss_limit_mb=1024,
        timeout=20,
        print_final_stats=1,
        use_value_profile=1,
        artifact_prefix=f"{folder / 'findings'}/",
    )
    atheris.Setup(
        [
            sys.argv[0],
            str(folder / "corpus"),
            *(f"-{name}={value}" for name, value in options.items()),
        ],
        one,
        custom_mutator=mutate,
    )
    atheris.Fuzz()


def table(folder: Path) -> str:
    "All runs of a folder, summed by target, as rows of Markdown."
    sums = {}
    for line in (folder / "runs.tsv").read_text().splitlines():
        target, seconds, accepted, refused, findings, peak = line.split("\t")
        row = sums.setdefault(target, [0.0, 0, 0, 0, 0, 0])
        row[:4] = (
            row[0] + float(seconds),
            row[1] + int(accepted),
            row[2] + int(refused),
            row[3] + int(findings),
        )
        row[4], row[5] = max(row[4], int(peak)), row[5] + 1
    lines = [
        (
            "| loader | minutes | files tried | accepted, and right | refused, and right | kinds of"
            " refusals | crashes or wrong exceptions | peak memory of the process |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for target, (seconds, accepted, refused, findings, peak, runs) in sums.items():
        kinds = len((folder / target / "refusals.txt").read_text().splitlines())
        lines.append(
            f"| {target} | {seconds / 60:.1f} | {accepted + refused:,} | {accepted:,} | {refused:,}"
            f" | {kinds} | {findings} | {peak / 1024:.0f} MiB |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz a loader.")
    parser.add_argument("target", nargs="?", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument(
        "--table", action="store_true", help="print the sums of all runs, and leave"
    )
    parser.add_argument(
        "--plant", action="store_true", help="the control: take out a check, which must be found"
    )
    args = parser.parse_args()
    if args.table:
        print(table(args.corpus))
        return 0
    if args.target is None:
        parser.error("expected a target, or --table")
    folder = args.corpus / args.target
    for name in "corpus", "findings":
        (folder / name).mkdir(parents=True, exist_ok=True)
    before, counters, began = (
        set(os.listdir(folder / "findings")),
        mmap.mmap(-1, 16),
        time.monotonic(),
    )
    work = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    child = os.fork()
    if child == 0:
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            fuzz(args.target, folder, args.seconds, counters, work, args.plant)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)  # atheris ends the process itself; whoever comes here has failed
    _, status, usage = os.wait4(child, 0)
    shutil.rmtree(work, ignore_errors=True)
    seconds, found = time.monotonic() - began, sorted(set(os.listdir(folder / "findings")) - before)
    accepted, refused = struct.unpack("<2Q", counters[:16])
    row = [args.target, f"{seconds:.1f}", accepted, refused, len(found), usage.ru_maxrss]
    with open(args.corpus / "runs.tsv", "a") as f:
        f.write("\t".join(map(str, row)) + "\n")
    print(
        f"{args.target}: {accepted + refused:,} files in {seconds:.0f} s, {accepted:,} accepted, "
        f"{refused:,} refused, {len(found)} findings, peak memory {usage.ru_maxrss / 1024:.0f} MiB",
        *found,
        sep="\n  ",
    )
    code = os.waitstatus_to_exitcode(status)
    if code and not found:
        print(f"the fuzzer ended with {code}: see {folder / 'log'}")
    return int(bool(code or found))


if __name__ == "__main__":
    sys.exit(main())
