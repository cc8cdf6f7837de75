#!/usr/bin/env python3
"""Keep what 22_training shows of the bundled model's training, from the folder in which it was
made.

Usage: python tools/keep_training.py FOLDER [STORIES]
Writes nbs/fixtures/training_log.jsonl: the log, its numbers shortened, and for each model that was
kept the loss on STORIES fresh stories (default 500) beside their entropy, and how much each head
looks at what comes again.
"""

import json
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from llama2_nb.core import Llama
from llama2_nb.training.tales import draw
from llama2_nb.tokenizer import BOS
from llama2_nb.training.train import copying, read_log, text_surprisal

TARGET = Path(__file__).resolve().parent.parent / "nbs/fixtures/training_log.jsonl"
RARE = (
    0.004  # a token is rare if at most such a share of all tokens is one: most of names and things
)


def short(value):
    "A number with five digits; anything else as it is."
    return float(f"{value:.5g}") if isinstance(value, float) else value


def seen(llama: Llama, stories: list[tuple[str, float]]) -> dict:
    "What one model makes of stories."
    weights, c, tok = vars(llama.model.weights), llama.model.config, llama.tokenizer
    counts, surprisals = np.array([text_surprisal(weights, c, tok, text) for text, _ in stories]).T
    rows = [np.array([tok.encode(text) + [BOS]]) for text, _ in stories[:24]]
    share = Counter(int(id) for row in rows for id in row[0])
    rare = {id for id in share if share[id] <= RARE * share.total()}
    heads = [
        copying(weights, c, row[:, :-1], np.where(np.isin(row, list(rare)), row, -1)[:, 1:])
        for row in rows
    ]
    return dict(
        story_nats=surprisals.sum() / counts.sum(),
        entropy=sum(n for _, n in stories) / counts.sum(),
        stories=len(stories),
        copying=np.mean(heads, axis=0).round(4).tolist(),
    )


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    folder, rng = Path(sys.argv[1]), random.Random("fresh stories")
    stories = [draw("{story}", rng) for _ in range(int(sys.argv[2]) if len(sys.argv) == 3 else 500)]
    log, settings = read_log(folder / "log.jsonl"), {}
    for entry in log:
        settings |= entry.get("settings", {})
    with threadpool_limits(1, "blas"):
        for path in sorted(folder.glob("model_*.bin"), key=lambda path: int(path.stem[6:])):
            step = int(path.stem[6:])
            entry = dict(step=step, tokens=step * settings["batch"] * settings["length"])
            log.append(entry | seen(Llama.load(path, backend="numpy"), stories))
            print(step, f"{log[-1]['story_nats']:.4f} of {log[-1]['entropy']:.4f} nats", flush=True)
    lines = (
        json.dumps({name: short(value) for name, value in entry.items()}, ensure_ascii=False)
        for entry in log
    )
    TARGET.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
