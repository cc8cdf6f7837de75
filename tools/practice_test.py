"""Write one stage of the practice in JupyterLab, as a student would, in a real browser.

Usage: python tools/practice_test.py [--chromium PATH] [--screenshots FOLDER]
A folder of `llama2-nb practice` is opened on loopback. Its notebook 06_rope is filled in: first
with the classic mistake, which the check must name; then with right functions, after which the
model must speak and write what llama2.c writes. Needs the extras `browser` and `notebook`, and a
Chromium.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from browser_test import Witness, jupyterlab, open_in_lab
from playwright.sync_api import Locator, Page, expect, sync_playwright

from llama2_nb.practice.workshop import make_folder

MINUTE = 60_000  # milliseconds
FREQUENCIES = """def rope_frequencies(head_size, theta):
    exponent = np.arange(0, head_size, 2, dtype=np.float32) / head_size
    return (1 / np.float32(theta) ** exponent).astype(np.float32)"""
COS_SIN = """def rope_cos_sin(positions, frequencies):
    angle = np.float32(positions)[:, None, None] * frequencies
    return np.cos(angle), np.sin(angle)"""
MISTAKEN = """def rotate(x, cos, sin):
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)"""
RIGHT = """def rotate(x, cos, sin):
    y = np.zeros_like(x)
    for i in range(x.shape[-1] // 2):
        a, b = x[..., 2 * i], x[..., 2 * i + 1]
        y[..., 2 * i] = a * cos[..., i] - b * sin[..., i]
        y[..., 2 * i + 1] = a * sin[..., i] + b * cos[..., i]
    return y"""


def cell(page: Page, text: str) -> Locator:
    "The code cell in which a text stands."
    return page.locator(".jp-CodeCell").filter(has_text=text).first


def write(page: Page, name: str, source: str) -> None:
    "Write a function into its cell."
    editor = cell(page, f"def {name}(").locator(".cm-content")
    editor.scroll_into_view_if_needed()
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(source)


def run_all(page: Page) -> None:
    "Run every cell, one after the other; it doesn't wait for them."
    page.evaluate("window.jupyterapp.commands.execute('runmenu:run-all')")


def report(page: Page, name: str) -> Locator:
    "What the check of a function says."
    return cell(page, f'check("rope.{name}"').locator(".jp-OutputArea")


def walk(page: Page, base: str, shots: Path | None) -> None:
    "The stage from its blanks to a story."
    open_in_lab(page, base, "06_rope")
    run_all(page)
    expect(report(page, "rotate")).to_contain_text("not written yet", timeout=5 * MINUTE)

    write(page, "rope_frequencies", FREQUENCIES)
    write(page, "rope_cos_sin", COS_SIN)
    write(page, "rotate", MISTAKEN)
    run_all(page)
    expect(report(page, "rotate")).to_contain_text("split-half pairing", timeout=5 * MINUTE)
    expect(report(page, "rotate").locator("table")).to_have_count(2)
    for name in "rope_frequencies", "rope_cos_sin":
        expect(report(page, name)).to_contain_text("right, in all", timeout=5 * MINUTE)
    if shots:
        report(page, "rotate").scroll_into_view_if_needed()
        page.screenshot(path=shots / "practice-mistake.png")
    told = cell(page, "speak(globals())").locator(".jp-OutputArea")
    expect(told).to_contain_text("is another than llama2.c's", timeout=5 * MINUTE)

    write(page, "rotate", RIGHT)
    run_all(page)
    expect(report(page, "rotate")).to_contain_text("right, in all", timeout=5 * MINUTE)
    expect(told).to_contain_text("rope.rope_frequencies, rope.rope_cos_sin, rope.rotate")
    expect(told).to_contain_text("tokens are the ones that llama2.c wrote", timeout=5 * MINUTE)
    if shots:
        told.scroll_into_view_if_needed()
        page.screenshot(path=shots / "practice-story.png")


def main() -> None:
    "The command."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = "chromium", "google-chrome", "chromium-browser"
    found = next(filter(None, map(shutil.which, names)), None)
    parser.add_argument("--chromium", default=found, help="the browser (default: on the PATH)")
    parser.add_argument("--screenshots", type=Path, help="a folder for pictures")
    options = parser.parse_args()
    if options.screenshots:
        options.screenshots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as parent, sync_playwright() as playwright:
        folder = Path(parent, "practice")
        make_folder(folder)
        with jupyterlab(folder, Path(parent)) as base:
            browser = playwright.chromium.launch(
                executable_path=options.chromium, args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            witness = Witness(page)
            walk(page, base, options.screenshots)
            asked = [seen for seen in witness.seen if seen.startswith("request")]
            assert not asked, asked
            browser.close()
    print("one stage of the practice: a named mistake, three right functions, a story")


if __name__ == "__main__":
    main()
