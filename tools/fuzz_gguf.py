"""Mutate small GGUF files at random: each must give a model or one sentence, in bounded memory.

python tools/fuzz_gguf.py --count 20000 --seed 1
"""

import argparse
import random
import resource
import struct
import sys
import tempfile
import warnings
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from llama2_nb.checkpoint import Weights
from llama2_nb.config import CheckpointError, Config, tensor_shapes
from llama2_nb.core import Llama
from llama2_nb.formats.gguf import WRITTEN, read_gguf, write_gguf
from llama2_nb.tokenizer import TokenizerError

INTERESTING = (0, 1, 2, 3, 7, 31, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63)
SAID = (CheckpointError, TokenizerError)  # what a user gets as one sentence


def byte_level() -> dict:
    "Settings of a small vocabulary of the byte-level kind."
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, "th", "the", "<|end|>"]
    kinds = np.ones(len(tokens), np.int32)
    kinds[-1] = 3
    names = {"model": "gpt2", "pre": "llama-bpe", "tokens": tokens, "token_type": kinds}
    names |= {"merges": ["t h", "th e"], "eos_token_id": len(tokens) - 1}
    names |= {"bos_token_id": len(tokens) - 1}
    return {f"tokenizer.ggml.{name}": value for name, value in names.items()}


def seeds(folder: Path) -> list[bytes]:
    """Small good files: each kind of matrix, heads that share keys, a classifier of its own, and
    vocabularies of both kinds.
    """
    files, draw, tokenizer = [], np.random.default_rng(1), Llama.load().tokenizer
    has_tokenizers = find_spec("tokenizers") is not None
    for kind in WRITTEN:
        for shared, heads in (True, 2), (False, 1):
            c = Config(64, 64, 2, 2, heads, tokenizer.vocab_size, 64, shared)
            tensors = {
                name: draw.standard_normal(shape, np.float32) / 8
                for name, shape in tensor_shapes(c).items()
            }
            path = folder / "seed.gguf"
            other = has_tokenizers and not shared
            write_gguf(path, c, Weights(**tensors), byte_level() if other else tokenizer, kind)
            files.append(path.read_bytes())
    return files


def flip(draw: random.Random, data: bytearray, head: int) -> None:
    "Change some bits, most of them in the head."
    for _ in range(draw.randint(1, 8)):
        place = draw.randrange(head if draw.random() < 0.9 else len(data))
        data[place] ^= 1 << draw.randrange(8)


def cut(draw: random.Random, data: bytearray, head: int) -> None:
    "Leave out the end."
    del data[draw.randrange(head if draw.random() < 0.5 else len(data)) :]


def splice(draw: random.Random, data: bytearray, head: int) -> None:
    "Leave out, repeat or insert a piece."
    at, n = draw.randrange(head), draw.randint(1, 64)
    piece = draw.choice((b"", bytes(data[at : at + n]) * 2, draw.randbytes(n)))
    data[at : at + n] = piece


def overwrite(draw: random.Random, data: bytearray, head: int) -> None:
    "Write a number that is likely to hurt somewhere in the head."
    kind = draw.choice("BHIQ")
    number = draw.choice(INTERESTING) % 2 ** (8 * struct.calcsize(kind))
    struct.pack_into(f"<{kind}", data, draw.randrange(head - 8), number)


def near_a_name(draw: random.Random, data: bytearray, head: int) -> None:
    "Change the type or the value of a setting, or what the table says of a tensor."
    place = data.find(draw.choice((b"llama.", b"tokenizer.", b"general.", b"blk.", b".weight")))
    starts = []
    while 0 <= place < head:
        starts.append(place)
        place = data.find(data[starts[0] : starts[0] + 4], place + 1)
    if not starts:
        return
    at = draw.choice(starts)
    end = at + struct.unpack_from("<Q", data, max(0, at - 8))[0] % 64
    kind = draw.choice("IQf")
    if kind == "f":
        number = draw.choice((float("nan"), float("inf"), -1.0, 0.0, 1e-40, 1e38))
    else:
        number = draw.choice(INTERESTING) % 2 ** (8 * struct.calcsize(kind))
    offset = min(end + draw.choice((-8, 0, 4, 8, 12, 16, 20, 24, 28)), head - 8)
    struct.pack_into(f"<{kind}", data, max(0, offset), number)


def swap(draw: random.Random, data: bytearray, head: int) -> None:
    "Exchange two pieces of the head of the same length."
    n = draw.randint(1, 32)
    a, b = draw.randrange(head - n), draw.randrange(head - n)
    data[a : a + n], data[b : b + n] = data[b : b + n], data[a : a + n]


def mix(draw: random.Random, data: bytearray, head: int, other: bytes = b"") -> None:
    "The end of another file."
    at = draw.randrange(head)
    data[at:] = other[at:]


MUTATIONS = (flip, cut, splice, overwrite, near_a_name, swap, mix)


def mutated(draw: random.Random, files: list[tuple[bytes, int]]) -> tuple[bytes, str]:
    "A file with one to three mutations, and the name of the last."
    whole, head = draw.choice(files)
    data, name = bytearray(whole), ""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        change = draw.choice(MUTATIONS)
        name, end = change.__name__, min(head, len(data))
        if end < 100:
            break
        if change is mix:
            change(draw, data, end, draw.choice(files)[0])
        else:
            change(draw, data, end)
    return bytes(data), name


def outcome(path: Path, backend: str, same: set[bytes]) -> str:
    """What a file leads to. A model that answers other than each unchanged one is "another":
    its numbers were changed, or its sizes, and nothing in the file says that they were not meant.
    """
    try:
        llama = Llama.load(path, backend=backend, positions=64)
        ids = llama.tokenizer.encode("The fox")[: min(8, llama.model.config.seq_len)]
        logits = llama.model.forward(ids, llama.model.new_cache())
        llama.tokenizer.decode([*ids, 200])
    except SAID as e:
        if "\n" in str(e) or not str(e).startswith(f"{path}"):
            raise AssertionError(f"not one sentence with the path: {e!r}") from e
        return type(e).__name__
    if logits.tobytes() in same:
        return "the same model"
    return "another model" if np.isfinite(logits).all() else "a model that isn't finite"


def fuzz(count: int, seed: int, backend: str, folder: Path, keep: bool = False) -> Counter:
    "Outcomes by how often each came; keep: files that lead to a fault, beside `folder`."
    draw, counts, peak = random.Random(seed), Counter(), 0
    files = [(data, read_gguf(data).first) for data in seeds(folder)]
    path, same = folder / "mutated.gguf", set()
    for data, _ in files:
        path.write_bytes(data)
        llama = Llama.load(path, backend=backend, positions=64)
        ids = llama.tokenizer.encode("The fox")[:8]
        same.add(llama.model.forward(ids, llama.model.new_cache()).tobytes())
    for n in range(count):
        data, name = mutated(draw, files)
        path = folder / f"mutated{n % 2}.gguf"
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                found = outcome(path, backend, same)
        except (Exception, MemoryError) as e:
            found = f"FAULT {type(e).__name__}: {str(e)[:150]}"
            if keep:
                kept = folder.parent / f"fuzz-{seed}-{n}.gguf"
                kept.write_bytes(data)
                print(f"{n} {name} {found} ({kept})", file=sys.stderr)
        counts[found] += 1
        peak = max(peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    counts["peak of memory (MB)"] = peak // 1000
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backend", default="numpy", choices=("numpy", "numba"))
    parser.add_argument("--limit", type=int, default=3 * 2**30, help="address space in bytes")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (given.limit, given.limit))
    with tempfile.TemporaryDirectory() as folder:
        counts = fuzz(given.count, given.seed, given.backend, Path(folder), keep=True)
    for found, n in counts.most_common():
        print(f"{n:8} {found}")
    return any(found.startswith("FAULT") for found in counts)


if __name__ == "__main__":
    sys.exit(main())
