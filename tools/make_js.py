"""Make llama2_nb/show/browser/llama.js from the blocks of JavaScript in nbs/53_browser.ipynb; and
put together what the live page is made of, for the site and for its test.

Usage: python tools/make_js.py [--check]
--check writes nothing and exits with 1 if the file is not what the chapter says.
"""

import base64
import json
import re
import shutil
import sys
from pathlib import Path

from settings import NOTEBOOKS, ROOT

FILE = ROOT / "llama2_nb/show/browser/llama.js"
PROMPT = "Once there was a boy named Ben. One day,"  # as in the markup of the page
OPENING = 12  # positions that the page shows before the model is there


def javascript() -> str:
    "The blocks of JavaScript of the chapter, one after the other."
    cells = json.loads((NOTEBOOKS / "53_browser.ipynb").read_text(encoding="utf-8"))["cells"]
    prose = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    blocks = re.findall(r"^```js\n(.*?)\n```$", "\n\n".join(prose), re.S | re.M)
    return "\n\n".join(blocks) + "\n"


def opening(model: Path, vocabulary: Path) -> dict:
    "What the page's engine would say of the first positions, for a page that has no engine yet."
    from llama2_nb.core import Llama
    from llama2_nb.show import live
    from llama2_nb.storage.int8 import weight_only

    llama = Llama.load(model, vocabulary)
    llama.model.weights = weight_only(llama.model.weights)  # as the page computes
    tokens = []
    for said, arrays in live.write(llama, PROMPT, steps=OPENING):
        packed = {name: base64.b64encode(a.tobytes()).decode() for name, a in arrays.items()}
        tokens.append(said | packed)
    del tokens[OPENING:]  # the message that says how it ended
    return live.describe(llama) | {"type": "opening", "tokens": tokens}


def copy_explorer(to: Path) -> None:
    """The live page with its model: int8 weights, so that it is there in a second, and a stored
    opening for that second. Nothing is downloaded and nothing learned.
    """
    from llama2_nb.formats.llama2c import quantize_checkpoint

    models = ROOT / "llama2_nb/models"
    shutil.copytree(ROOT / "llama2_nb/show/browser", to)
    shutil.copyfile(models / "tok896.bin", to / "tok896.bin")
    quantize_checkpoint(models / "tales.bin", to / "tales_q80.bin")
    first = opening(to / "tales_q80.bin", to / "tok896.bin")
    (to / "opening.json").write_text(json.dumps(first, ensure_ascii=False), encoding="utf-8")


def main() -> int:
    text = javascript()
    if "--check" in sys.argv[1:]:
        if not FILE.exists() or FILE.read_text(encoding="utf-8") != text:
            print(f"{FILE.relative_to(ROOT)}: not what 53_browser says; run tools/make_js.py")
            return 1
        return 0
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
