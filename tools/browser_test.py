"""Use the playground as a reader would: in JupyterLab and in Voilà, with a real browser.

Usage: python tools/browser_test.py [--chromium PATH] [--screenshots FOLDER]
Both servers listen on loopback only. Every playground is opened, its main control is moved by mouse
or keyboard, and the change on the page asserted; a page that writes an error to its console, or
asks any other machine for anything, fails. In the light, in the dark and (under Voilà) on a phone,
axe must find no serious fault, the page must not scroll sideways, and every link must lead to the
book's site. Each of these checks is tried on a page made to fail it first. Needs the extras `dev`
and `browser`, and a Chromium.
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

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from settings import NOTEBOOKS, SETTINGS

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = "52_playground"
SITE = SETTINGS["DEFAULT"]["doc_host"] + SETTINGS["DEFAULT"]["doc_baseurl"]
# name → width and height of the window, colour scheme; high enough for axe to see all of the page
MODES = {
    "light": (1280, 6000, "light"),
    "dark": (1280, 6000, "dark"),
    "phone": (390, 10000, "light"),
    "phone, dark": (390, 10000, "dark"),
}
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


def template(folder: Path) -> Path:
    "A folder in which Voilà finds this checkout's template, rather than an installed one."
    data = folder / "data"
    shutil.copytree(ROOT / "llama2_nb/voila", data / "voila/templates/llama2_nb")
    return data


@contextlib.contextmanager
def server(command: list[str], folder: Path, url: str, log: Path):
    "A process that answers at `url`, ended at the end."
    private = {"JUPYTER_PATH": str(template(log.parent))} | {
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
    "The handle of a slider, which takes keys; found by its name, as a screen reader tells it."
    return panel.get_by_role("slider", name=name, exact=True)


def said(panel: Locator) -> Locator:
    "What a screen reader was told last."
    return panel.get_by_role("status")


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
    expect(said(p)).to_have_text("")  # nothing before the first change
    slider(p, "byte").press("ArrowRight")
    expect(p).to_contain_text("Byte 21 is byte 1 of vocab_size")
    expect(said(p)).to_contain_text("Byte 21 is byte 1 of vocab_size")
    expect(said(p)).not_to_contain_text("classifier")  # which has not changed
    p.get_by_role("checkbox").check()
    expect(p).to_contain_text("The classifier is wcls")
    shoot(p, "1-bytes")

    p = panel("tokenizer-explorer")
    expect(p).to_contain_text("of 19 merges")
    box(p, "text").fill("together")
    expect(p).to_contain_text("after 8 of 8 merges")
    slider(p, "merges").press("Home")
    expect(p).to_contain_text("9 pieces after 0 of 8 merges")
    box(p, "text").fill("q" * 161)
    expect(p).to_contain_text("The first 160 of 161 characters are shown.")
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
    # as the text above it promises: on the comma before the last "Lily"
    expect(page.locator("body")).to_contain_text("opens on the comma before the last Lily")
    expect(p).to_contain_text("weights in the row of ,, position 24; the largest is 1.00, of ␣L")
    expect(p.get_by_role("button", name="24 ,", exact=True)).to_have_class(re.compile("mod-active"))
    slider(p, "tokens to write").press("End")
    expect(p).to_contain_text("40 the model wrote")
    assert p.locator("svg text").count() > 30  # labels, however long the text
    expect(p).to_contain_text("weights in the row of ,, position 24")
    p.get_by_role("button", name="26 ily", exact=True).click()
    expect(p).to_contain_text("weights in the row of ily, position 26")
    p.get_by_role("button", name="24 ,", exact=True).click()
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
    expect(p).to_contain_text("other tokens of the nucleus (")
    slider(p, "temperature").press("End")
    slider(p, "number").press("End")
    expect(p).to_contain_text(re.compile(r"rank \d\d"))  # a token that is not among the likeliest
    shoot(p, "6-sampling")
    slider(p, "temperature").press("Home")
    expect(p).to_contain_text("temperature 0: the largest logit wins")
    expect(said(p)).to_contain_text("Nothing is drawn")
    expect(said(p)).not_to_contain_text("probability")  # not the whole table
    assert slider(p, "number").count() == 1

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
    expect(p).to_contain_text("The model ended the story here: it chose the end token <s>")
    expect(said(p)).to_contain_text("The model ended the story here")
    expect(button(p, "Next token")).to_be_disabled()
    expect(button(p, "Write on")).to_be_disabled()
    shoot(p, "7-story-ended")
    slider(p, "place").press("ArrowLeft")
    expect(p).not_to_contain_text("ended the story")
    expect(button(p, "Next token")).to_be_enabled()
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

    p = panel("explorer")
    status, story = p.locator("#status"), p.locator("#story .tok")
    expect(status).to_contain_text("tokens a second")
    expect(p.locator("#head-says")).to_contain_text("looks from “,” at “Ben” with 100 %")
    for head in 3, 7:
        status.evaluate("node => { node.textContent = ''; }")
        p.locator(f"[data-layer='4'][data-head='{head}']").click()
    expect(status).to_contain_text("tokens a second")
    assert "Ben" not in "".join(story.all_text_contents()).partition("One day,")[2]
    shoot(p, "9-explorer")
    cells = page.locator(".jp-Cell").count()
    p.locator("#prompt").fill("")
    p.locator("#prompt").press_sequentially(f"a dab {HOSTILE}")  # a, b, d: commands of JupyterLab
    p.locator("#prompt").press("Enter")
    expect(p.locator("#story")).to_contain_text("a dab <script>window.broken=1</script>")
    assert page.locator(".jp-Cell").count() == cells

    assert page.evaluate("window.broken") is None, "text that a user typed was run"


def serious(page: Page, inside: str) -> list[str]:
    "What axe finds there and calls serious or critical."
    found = Axe().run(page, context=inside, options={"resultTypes": ["violations"]})
    return [
        f"{v['id']}: {node['html'][:200]}"
        for v in found.response["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"][:3]
    ]


def sideways(page: Page) -> list[str]:
    "What is wider than its place, but for views, which scroll by themselves, and boxes of text."
    return page.evaluate(
        """() => [...document.querySelectorAll("*")].filter(e =>
            e.clientWidth > 1 && e.scrollWidth > e.clientWidth + 1
            && getComputedStyle(e).overflowX !== "visible" && !e.matches(".sheet, .sheet *, input")
        ).map(e => `${e.tagName} ${e.className}: ${e.scrollWidth} in ${e.clientWidth} pixels`)"""
    )


def astray(page: Page) -> list[str]:
    "Links that don't lead to a chapter on the book's site."
    links = [link.get_attribute("href") for link in page.locator('a:not([href^="#"])').all()]
    assert len(links) > 8, links
    chapters = {f"{SITE}/{path.stem}.html" for path in NOTEBOOKS.glob("*.ipynb")}
    return [link for link in links if link not in chapters]


def check_sheets(page: Page, scheme: str) -> None:
    "Every view has the colours of the theme, which the body names."
    from llama2_nb.show.widgets import PALETTE  # explorer_test.py can do without Matplotlib

    light = "true" if scheme == "light" else "false"
    page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
    sheet, ink = (PALETTE[name][scheme == "dark"] for name in ("sheet", "ink"))
    found = page.evaluate(
        """() => [...document.querySelectorAll(".sheet")].map(e =>
            [getComputedStyle(e).backgroundColor, getComputedStyle(e).color])"""
    )

    def hexadecimal(color: str) -> str:  # "rgb(255, 255, 255)" → "#ffffff"
        return "#" + "".join(f"{int(number):02x}" for number in re.findall(r"\d+", color))

    seen = {(hexadecimal(behind), hexadecimal(text)) for behind, text in found}
    assert len(found) == 9 and seen == {(sheet, ink)}, (scheme, seen)


def stir(page: Page) -> None:
    "Views with all that they can show: an end, an error, a conversation, a token far from the top."
    p = page.locator(".story-stepper:visible").first
    slider(p, "temperature").press("Home")
    button(p, "Write on").click()
    expect(p).to_contain_text("The model ended the story here")
    slider(p, "place").press("PageDown")  # some tokens lie after the cursor
    p = page.locator(".sampling-explorer:visible").first
    slider(p, "temperature").press("End")
    slider(p, "number").press("End")
    expect(p).to_contain_text("other tokens outside the nucleus")
    p = page.locator(".cache-explorer:visible").first
    p.get_by_label("n_heads", exact=True).fill("-1")
    p.get_by_label("n_heads", exact=True).press("Enter")
    expect(p).to_contain_text("n_heads: expected")
    p = page.locator(".chat-box:visible").first
    box(p, "system prompt").fill("Be kind.")
    box(p, "message").fill("fox " * 600)
    box(p, "message").press("Enter")
    expect(p).to_contain_text("expected at most")
    box(p, "message").fill("Tell me a story about Lily.")
    box(p, "message").press("Enter")
    expect(box(p, "message")).to_have_value("")
    page.wait_for_timeout(1500)


def checks_notice(page: Page) -> None:
    "The negative controls: each check must fail on a page that was made to fail it."
    handle = "document.querySelector('.byte-explorer [role=slider]')"
    page.evaluate(f"{handle}.setAttribute('aria-label', '')")
    found = serious(page, ".byte-explorer")
    assert any("aria-input-field-name" in fault for fault in found), f"no fault: {found}"
    page.evaluate(f"{handle}.setAttribute('aria-label', 'byte')")
    page.evaluate("document.querySelector('.sheet p').style.color = '#aaa'")
    found = serious(page, ".byte-explorer")
    assert any("color-contrast" in fault for fault in found), f"no fault: {found}"
    page.evaluate("document.querySelector('.sheet p').style.color = ''")
    for selector, body in (
        ("#rendered_cells", '<div style="width:3000px">wide</div>'),
        (".jp-RenderedHTMLCommon", '<a href="01_config.ipynb">not served here</a>'),
    ):
        page.evaluate(
            "([at, body]) => document.querySelector(at).insertAdjacentHTML('beforeend',"
            " `<div id=wrong>${body}</div>`)",
            [selector, body],
        )
        assert sideways(page) if "wide" in body else astray(page), f"not noticed: {body}"
        page.evaluate("document.querySelector('#wrong').remove()")


def check_look(browser: Browser, url: str, shots: Path) -> None:
    "Voilà's page in every mode, with its views as they open and stirred up."
    for mode, (width, height, scheme) in MODES.items():
        size = {"width": width, "height": height}
        page = browser.new_page(viewport=size, color_scheme=scheme)
        page.set_default_timeout(120000)
        witness = Witness(page)
        page.goto(url)
        expect(page.locator(".chat-box [role=status]")).to_be_attached()
        if mode == "light":
            checks_notice(page)
        for state in "opened", "stirred":
            assert not (found := serious(page, "body")), (mode, state, found)
            assert not (found := sideways(page)), (mode, state, found)
            assert not (found := astray(page)), (mode, state, found)
            check_sheets(page, scheme)
            page.screenshot(path=shots / f"voila-{mode.replace(', ', '-')}-{state}.png")
            if state == "opened":
                stir(page)
        other = "light" if scheme == "dark" else "dark"  # while the page is open
        page.emulate_media(color_scheme=other)
        check_sheets(page, other)
        assert not witness.seen, (mode, witness.seen)
        page.goto("about:blank")
        page.close()


def in_voila(page: Page, work: Path, shoot, shots: Path) -> None:
    port = free_port()
    command = [
        "voila",
        f"nbs/{NOTEBOOK}.ipynb",
        "--no-browser",
        f"--port={port}",
        "--Voila.ip=127.0.0.1",
    ]
    url = f"http://127.0.0.1:{port}/"
    with server(command, ROOT, url, work / "voila.log"):
        page.goto(url)
        page.wait_for_selector(".chat-box", timeout=120000)
        drive(page, shoot)
        check_look(page.context.browser, url, shots)
        page.goto("about:blank")  # so that it doesn't miss its server


@contextlib.contextmanager
def jupyterlab(folder: Path, work: Path):
    "JupyterLab on a folder; gives its address. Settings and log are in `work`."
    port = free_port()
    (work / "lab.json").write_text(
        json.dumps(
            {
                "ServerApp": {
                    "ip": "127.0.0.1",
                    "port": port,
                    "open_browser": False,
                    "allow_root": True,
                    "root_dir": str(folder),
                },
                "IdentityProvider": {"token": ""},
                # the server too shall ask nobody for news or updates
                "LabApp": {
                    "news_url": None,
                    "check_for_updates_class": (
                        "jupyterlab.handlers.announcements.NeverCheckForUpdate"
                    ),
                    "extension_manager": "readonly",
                    "expose_app_in_browser": True,  # for commands that have no button
                },
            }
        )
    )
    base = f"http://127.0.0.1:{port}/lab"
    with server(
        ["jupyter", "lab", f"--config={work / 'lab.json'}"], folder, base, work / "lab.log"
    ):
        yield base


def open_in_lab(page: Page, base: str, name: str) -> None:
    "Open a notebook and wait for its kernel."
    page.goto(f"{base}/tree/{name}.ipynb")
    page.get_by_text(re.compile(r"\| Idle")).wait_for(timeout=120000)
    page.get_by_role("button", name="No", exact=True).click()  # no news, thank you


def in_jupyterlab(page: Page, work: Path, shoot, shots: Path) -> None:
    shutil.copy(ROOT / f"nbs/{NOTEBOOK}.ipynb", work)  # JupyterLab saves what it runs
    with jupyterlab(work, work) as base:
        open_in_lab(page, base, NOTEBOOK)
        page.get_by_text("Run", exact=True).first.click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.wait_for_selector(".jp-OutputArea .byte-explorer", timeout=120000)
        drive(page, shoot)
        # JupyterLab's own faults are not ours, and no phone is wide enough for it
        page.set_viewport_size({"width": 1280, "height": 8000})
        page.locator(".chat-box:visible").first.wait_for()
        for scheme, theme in ("light", "JupyterLab Light"), ("dark", "JupyterLab Dark"):
            page.evaluate(
                "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})",
                theme,
            )
            page.wait_for_timeout(1000)  # till its style sheet is there
            check_sheets(page, scheme)
            assert not (found := serious(page, ".llama2-nb")), (scheme, found)
            page.screenshot(path=shots / f"jupyterlab-{scheme}.png")
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
                    options.screenshots,
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
