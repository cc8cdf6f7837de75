"""Use the playground as a reader would: in JupyterLab and in Voilà, with a real browser.

Usage: python tools/browser_test.py [--chromium PATH] [--screenshots FOLDER]
Both servers listen on loopback only. Every playground is opened, its main control is moved by mouse
or keyboard, and the change on the page asserted; a page that writes an error to its console, or
asks any other machine for anything, fails. Needs the extras `dev` and `browser`, and a Chromium.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = "52_playground"
# runs in any page that takes it for HTML
HOSTILE = """<script>window.broken=1</script><img src=x onerror="window.broken=1">"""


class Witness:
    "Notes what a page must not do."

    def __init__(self, page: Page):
        self.seen: list[str] = []
        page.on(
            "console",
            lambda m: self.seen.append(f"console: {m.text[:300]}") if m.type == "error" else None,
        )
        page.on("pageerror", lambda e: self.seen.append(f"error: {e}"))
        page.on("request", lambda r: self._url(r.url))
        page.on("websocket", lambda w: self._url(w.url))

    def _url(self, url: str) -> None:
        if not re.match(r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|data:|blob:|about:", url):
            self.seen.append(f"request: {url}")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def server(command: list[str], folder: Path, url: str, log: Path):
    "A process that answers at `url`, ended at the end."
    private = {
        name: str(log.parent / name)
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
        )
    }
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=out, env=os.environ | private
        )
        try:
            for _ in range(2400):  # ten minutes: against hanging for ever
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    urllib.request.urlopen(url, timeout=60)
                    break
                if process.poll() is not None:
                    raise RuntimeError(f"{command[0]} ended: {log.read_text()[-2000:]}")
                time.sleep(0.25)
            yield
        finally:
            process.terminate()
            process.wait(600)


def button(panel: Locator, name: str) -> Locator:
    return panel.get_by_role("button", name=name, exact=True)


def slider(panel: Locator, name: str) -> Locator:
    "The handle of a slider, which takes keys."
    return panel.locator(
        ".widget-slider", has=panel.page.get_by_text(name, exact=True)
    ).get_by_role("slider")


def box(panel: Locator, name: str) -> Locator:
    return panel.locator(".widget-text", has=panel.page.get_by_text(name, exact=True)).locator(
        "input"
    )


def drive(page: Page, shoot) -> None:
    "Move the main controls of every playground and see that the page follows."

    def panel(name: str) -> Locator:
        found = page.locator(f".{name}:visible").first
        found.scroll_into_view_if_needed()
        return found

    p = panel("byte-explorer")
    expect(p).to_contain_text("Byte 20 is byte 0 of vocab_size")
    slider(p, "byte").press("ArrowRight")
    expect(p).to_contain_text("Byte 21 is byte 1 of vocab_size")
    p.get_by_role("checkbox").check()
    expect(p).to_contain_text("The classifier is wcls")
    shoot(p, "1-bytes")

    p = panel("tokenizer-explorer")
    expect(p).to_contain_text("of 19 merges")
    box(p, "text").fill("together")
    expect(p).to_contain_text("after 8 of 8 merges")
    slider(p, "merges").press("Home")
    expect(p).to_contain_text("9 pieces after 0 of 8 merges")
    box(p, "text").fill(HOSTILE)
    expect(p).not_to_contain_text("of 8 merges")
    shoot(p, "2-tokens")

    p = panel("RoPE-explorer")
    expect(p).to_contain_text("distance 3")
    dot = re.search(r"q · k = (\S+)", p.inner_text())[1]
    slider(p, "position of q").press("ArrowRight")
    expect(p).to_contain_text("distance 4")
    expect(p).not_to_contain_text(dot)
    slider(p, "position of q").press("ArrowLeft")
    p.get_by_role("checkbox").check()
    for _ in range(20):
        slider(p, "position of q").press("ArrowRight")
    expect(p).to_contain_text("q rotated by 27")
    expect(p).to_contain_text("k by 24")
    assert abs(float(dot) - float(re.search(r"q · k = (\S+)", p.inner_text())[1])) < 2e-4
    shoot(p, "3-rope")

    p = panel("attention-explorer")
    expect(p).to_contain_text("weights in the row of ily")
    p.get_by_role("button", name=re.compile(r"^\d+ ,$")).last.click()  # before the last "Lily"
    expect(p).to_contain_text("weights in the row of ,")
    assert p.locator("svg title").count() > 20  # what the pointer shows on each row
    shoot(p, "4-attention")
    button(p, "scores").click()
    expect(p).to_contain_text("scores in the row of ,")
    slider(p, "head").press("ArrowRight")
    box(p, "prompt").fill(HOSTILE)
    box(p, "prompt").press("Enter")
    expect(button(p, "2 <0x3C>")).to_be_visible()  # no token of the vocabulary: a byte
    shoot(p, "4-attention-hostile")

    p = panel("cache-explorer")
    expect(p).to_contain_text("10,240 bytes")
    slider(p, "positions").press("ArrowRight")
    expect(p).to_contain_text("12,800 bytes")
    p.locator("select").select_option("Llama 2 7B")
    expect(p).to_contain_text("4,294,967,296 bytes")
    shoot(p, "5-cache")

    p = panel("sampling-explorer")
    expect(p).to_contain_text("of 896 tokens are in the nucleus")
    nucleus = re.search(r"\b(\d{1,2}) of 896 tokens", re.sub(r"0\.\d{4}", " ", p.inner_text()))[0]
    slider(p, "top-p").press("ArrowLeft")
    expect(p).not_to_contain_text(nucleus)
    shoot(p, "6-sampling")
    slider(p, "temperature").press("Home")
    expect(p).to_contain_text("temperature 0: the largest logit wins")

    p = panel("story-stepper")
    tokens = int(re.search(r"(\d+) tokens,", p.inner_text())[1])
    button(p, "Next token").click()
    expect(p).to_contain_text(f"{tokens + 1} tokens,")
    slider(p, "place").press("ArrowLeft")
    p.locator(".widget-toggle-button", has_text=re.compile(r"0\.\d\d$")).nth(
        3
    ).click()  # force the fourth choice
    expect(p.locator("select option")).to_have_count(2, timeout=120000)
    button(p, "Write on").click()
    expect(p).to_contain_text(re.compile(r"[4-9]\d tokens|[1-5]\d\d tokens"), timeout=120000)
    shoot(p, "7-story")
    box(p, "prompt").fill(HOSTILE)
    box(p, "prompt").press("Enter")
    expect(p).to_contain_text("<script>window.broken=1</script>")

    p = panel("chat-box")
    box(p, "message").fill("Tell me a story about Lily.")
    box(p, "message").press("Enter")
    expect(p).to_contain_text(re.compile(r"model\s*\S+ \S+ \S+"), timeout=120000)
    expect(box(p, "message")).to_have_value("")
    box(p, "message").fill(HOSTILE)
    button(p, "Send").click()
    expect(p).to_contain_text("<script>window.broken=1</script>")
    button(p, "Stop").click()
    shoot(p, "8-chat")
    button(p, "New conversation").click()
    expect(p).to_contain_text("Nothing was said yet.")

    assert page.evaluate("window.broken") is None, "text that a user typed was run"


def in_voila(page: Page, work: Path, shoot) -> None:
    port = free_port()
    command = [
        "voila",
        f"nbs/{NOTEBOOK}.ipynb",
        "--no-browser",
        f"--port={port}",
        "--Voila.ip=127.0.0.1",
    ]
    with server(command, ROOT, f"http://127.0.0.1:{port}/", work / "voila.log"):
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector(".chat-box", timeout=120000)
        drive(page, shoot)
        page.goto("about:blank")  # so that it doesn't miss its server


def in_jupyterlab(page: Page, work: Path, shoot) -> None:
    port = free_port()
    shutil.copy(ROOT / f"nbs/{NOTEBOOK}.ipynb", work)  # JupyterLab saves what it runs
    (work / "lab.json").write_text(
        json.dumps(
            {
                "ServerApp": {
                    "ip": "127.0.0.1",
                    "port": port,
                    "open_browser": False,
                    "allow_root": True,
                    "root_dir": str(work),
                },
                "IdentityProvider": {"token": ""},
                # the server too shall ask nobody for news or updates
                "LabApp": {
                    "news_url": None,
                    "check_for_updates_class": (
                        "jupyterlab.handlers.announcements.NeverCheckForUpdate"
                    ),
                    "extension_manager": "readonly",
                },
            }
        )
    )
    with server(
        ["jupyter", "lab", f"--config={work / 'lab.json'}"],
        work,
        f"http://127.0.0.1:{port}/lab",
        work / "lab.log",
    ):
        page.goto(f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK}.ipynb")
        page.get_by_text(re.compile(r"\| Idle")).wait_for(timeout=120000)  # the kernel is there
        page.get_by_role("button", name="No", exact=True).click()  # no news, thank you
        page.get_by_text("Run", exact=True).first.click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.wait_for_selector(".jp-OutputArea .byte-explorer", timeout=120000)
        drive(page, shoot)
        page.goto("about:blank")


def notices(browser) -> bool:
    "The negative control: does the witness see an error, and a request that leaves the machine?"
    page = browser.new_page()
    witness = Witness(page)
    page.set_content(
        '<script>console.error("wrong")</script><img src="http://elsewhere.invalid/picture.png">'
    )
    page.wait_for_timeout(300)
    page.close()
    return {entry.split(":")[0] for entry in witness.seen} >= {"console", "request"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    found = next(
        (
            path
            for name in ("chromium", "google-chrome", "chromium-browser")
            if (path := shutil.which(name))
        ),
        None,
    )
    parser.add_argument(
        "--chromium", default=found, help="the browser (default: the one on the PATH)"
    )
    parser.add_argument(
        "--screenshots",
        type=Path,
        default=ROOT / "_proc/screenshots",
        help="where to keep what was seen",
    )
    options = parser.parse_args()
    if not options.chromium:
        parser.error("no Chromium on the PATH: name one with --chromium")
    options.screenshots.mkdir(parents=True, exist_ok=True)
    failed = 0
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as temporary:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox"]
        )
        if not notices(browser):
            print(
                "the witness is blind: it saw neither the error nor the request of a page made to"
                " fail"
            )
            return 1
        for name, visit in (("voila", in_voila), ("jupyterlab", in_jupyterlab)):
            page = browser.new_page(viewport={"width": 1280, "height": 1400})
            page.set_default_timeout(120000)
            expect.set_options(timeout=120000)
            witness, work = Witness(page), Path(temporary) / name
            work.mkdir()
            try:
                visit(
                    page,
                    work,
                    lambda panel, title: panel.screenshot(
                        path=options.screenshots / f"{name}-{title}.png"
                    ),
                )
                problems = witness.seen
            except Exception as e:  # the picture says more than the trace
                page.screenshot(path=options.screenshots / f"{name}-failed.png")
                problems = witness.seen + [str(e)[:1000]]
            failed += bool(problems)
            print(f"{name}: {'failed' if problems else 'passed'}", *problems[:10], sep="\n  ")
            page.close()
        browser.close()
    print(f"{2 - failed} passed, {failed} failed; pictures in {options.screenshots}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
