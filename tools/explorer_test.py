"""Compare the Llama in JavaScript with the one in Python, in a real browser.

Usage: python tools/explorer_test.py [--chromium PATH]
A page on loopback loads show/browser/llama.js: logits of every golden model, int8 files, encodings,
greedy texts and seeded stories must be Python's; damaged files must be refused by one sentence; and
wrong versions of the file must fail the same checks. Needs the extra `browser`, and a Chromium.
"""

import argparse
import functools
import http.server
import json
import shutil
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from llama2_nb.checkpoint import Checkpoint
from llama2_nb.core import Llama
from llama2_nb.transformer import Transformer

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = "nbs/fixtures"
ENGINE = "llama2_nb/show/browser/llama.js"
MODELS = "mha", "gqa", "mqa_unshared"
CLOSE = 1e-4  # how far logits may be from Python's

# runs in the page: what the engine makes of files and tokens
SCRIPT = """async ({engine, task}) => {
  const {Transformer, Tokenizer, Sampler, BOS, CheckpointError} = await import(engine);
  const get = async path => (await (await fetch(path)).arrayBuffer());
  if (task.kind === "logits") {
    const model = new Transformer(await get(task.model)), cache = model.newCache();
    return task.tokens.map(t => [...model.forward(t, cache).logits]);
  }
  if (task.kind === "encode") {
    const tok = new Tokenizer(await get(task.vocabulary), task.size);
    return task.texts.map(text => tok.encode(text));
  }
  if (task.kind === "refusal") {
    const bytes = Uint8Array.from(task.bytes).buffer;
    try { new Transformer(bytes); return "accepted"; }
    catch (e) { return e instanceof CheckpointError ? e.message : "another error: " + e; }
  }
  const model = new Transformer(await get("/llama2_nb/models/tales.bin"));
  const tok = new Tokenizer(await get("/llama2_nb/models/tok896.bin"), 896);
  const ids = tok.encode(task.prompt), cache = model.newCache(), text = [BOS];
  const sampler = new Sampler(
    {temperature: task.temperature, topP: task.top_p, seed: BigInt(task.seed)});
  const start = performance.now();
  let next = ids[0];
  for (let pos = 0; pos < (task.steps || 512); pos++) {
    const {logits} = model.forward(next, cache);
    next = pos + 1 < ids.length ? ids[pos + 1] : sampler.sample(logits);
    if (next === BOS) break;
    text.push(next);
  }
  const speed = cache.pos / (performance.now() - start) * 1000;
  return {text: tok.decode(text), ids: text, speed};
}"""

# (what is wrong, in the file, instead, the check that it must fail)
WRONG = [
    ("RoPE's other pairing", "x[i + 1] = a * sin[pair]", "x[i + 1] = a * -sin[pair]", "logits"),
    (
        "wq and wo exchanged",
        "linear(s.h, w.wq[layer], s.q)",
        "linear(s.h, w.wo[layer], s.q)",
        "logits",
    ),
    ("the first key/value head for all", "Math.floor(head / (nHeads / nKvHeads))", "0", "logits"),
    (
        "a seed that is off by one",
        "BigInt(seed) & MASK64",
        "(BigInt(seed) + 1n) & MASK64",
        "stories",
    ),
    ("no dummy prefix", 'if (text) parts.push(this.ids.get(" ") ?? 0);', "", "encodings"),
    ("activations that stay float32", "if (columns % group)", "if (true)", "int8"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def served(folder: Path):
    "The folder's address on loopback."
    handler = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Engine:
    "The module in a page, asked for one task at a time."

    def __init__(self, page: Page, base: str):
        self.page, self.engine = page, f"{base}{ENGINE}"

    def run(self, **task):
        return self.page.evaluate(SCRIPT, {"engine": self.engine, "task": task})


def differences(engine: Engine, suffix: str) -> dict[str, float]:
    "Model → how far its logits are from Python's, relative to nothing."
    found = {}
    for name in MODELS:
        path = f"{FIXTURES}/{name}{suffix}.bin"
        with np.load(ROOT / FIXTURES / f"{name}_logits.npz") as golden:
            tokens, logits = golden["tokens"], golden["logits"]
        if suffix:
            with Checkpoint.open(ROOT / path) as ckpt:
                model = Transformer(ckpt)
                logits = model.forward(tokens, model.new_cache())
        theirs = engine.run(kind="logits", model=f"/{path}", tokens=tokens.tolist())
        found[name] = float(np.abs(np.array(theirs) - logits).max())
    return found


def check_logits(engine: Engine) -> str:
    found = differences(engine, "")
    llama = Llama.load()
    ids = llama.tokenizer.encode("Once there was a boy named Ben. One day,")
    theirs = engine.run(kind="logits", model="/llama2_nb/models/tales.bin", tokens=ids)
    ours = llama.model.forward(ids, llama.model.new_cache())
    found["bundled"] = float(np.abs(np.array(theirs) - ours).max())
    assert max(found.values()) < CLOSE, found
    return f"{len(found)} models, at most {max(found.values()):.1e}"


def check_int8(engine: Engine) -> str:
    """Where no activation falls on the border between two whole numbers, logits are Python's; the
    model gqa has such a case at its 18th token, so only what comes before it is compared.
    """
    found = differences(engine, "_q80")
    border = found.pop("gqa")
    assert max(found.values()) < CLOSE and border < 0.2, (found, border)
    most = max(found.values())
    return f"{len(found)} models, at most {most:.1e}; one step on a border: {border:.2f}"


def check_encodings(engine: Engine) -> str:
    cases = json.loads((ROOT / FIXTURES / "encode.json").read_text(encoding="utf-8"))["tok512.bin"]
    texts = [case["text"] for case in cases]
    ids = engine.run(kind="encode", vocabulary=f"/{FIXTURES}/tok512.bin", size=512, texts=texts)
    assert ids == [case["ids"] for case in cases]
    return f"{len(cases)} texts"


def check_stories(engine: Engine) -> str:
    golden = json.loads((ROOT / FIXTURES / "tales_golden.json").read_text(encoding="utf-8"))
    speeds = []
    for case in golden["generate"]:
        done = engine.run(kind="write", **case["options"])
        assert done["text"] == case["text"], case["options"]
        speeds.append(done["speed"])
    llama = Llama.load()
    greedy = dict(prompt="Once there was a boy named Ben. One day,", temperature=0, steps=72)
    done = engine.run(kind="write", top_p=0.9, seed=1, **greedy)
    assert done["ids"] == [1, *llama.tokens(**greedy)]
    return f"{len(speeds)} stories; {np.median(speeds):.0f} tokens/s in the page"


def check_refusals(engine: Engine) -> str:
    whole = (ROOT / FIXTURES / "gqa.bin").read_bytes()
    zero = bytes(4) + whole[4:]
    for data, words in [
        (whole[:20], "header: expected 28 bytes, found 20"),
        (whole[:-4], "file size: expected"),
        (whole + bytes(4), "file size: expected"),
        (zero, "dim: expected a number from 1 up, found 0"),
        (b"GGUF" + bytes(300), "expected"),
        (b"24ka" + bytes(300), "version: expected 1 or 2, found 0"),
    ]:
        message = engine.run(kind="refusal", bytes=list(data))
        assert message.startswith(words) or (words == "expected" and words in message), message
    return "6 damaged files"


CHECKS = {
    "logits": check_logits,
    "int8": check_int8,
    "encodings": check_encodings,
    "stories": check_stories,
    "refusals": check_refusals,
}


def replacement(body: str):
    "What answers a page's request with another file."
    return lambda route: route.fulfill(body=body, content_type="text/javascript")


def check_controls(browser, base: str) -> list[str]:
    "Wrong versions that pass their check."
    source, passed = (ROOT / ENGINE).read_text(encoding="utf-8"), []
    for what, right, wrong, check in WRONG:
        assert source.count(right) == 1, right
        page = browser.new_page()
        page.route("**/llama.js", replacement(source.replace(right, wrong)))
        page.goto(f"{base}{FIXTURES}/")
        try:
            CHECKS[check](Engine(page, base))
            passed.append(what)
        except AssertionError:
            pass
        page.close()
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = "chromium", "google-chrome", "chromium-browser"
    found = next((path for name in names if (path := shutil.which(name))), None)
    parser.add_argument("--chromium", default=found, help="the browser (default: on the PATH)")
    options = parser.parse_args()
    with served(ROOT) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.goto(f"{base}{FIXTURES}/")
        for name, check in CHECKS.items():
            print(f"{name}: {check(Engine(page, base))}", flush=True)
        passed = check_controls(browser, base)
        browser.close()
    for what in passed:
        print(f"a control passed: {what}")
    print(f"{len(CHECKS)} checks, {len(WRONG) - len(passed)} of {len(WRONG)} wrong versions caught")
    return bool(passed)


if __name__ == "__main__":
    sys.exit(main())
