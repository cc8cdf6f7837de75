"""Walk the documentation site as a reader would: every link, every page, in light, dark and on a
phone.

Usage: python tools/site_test.py [--site FOLDER] [--chromium PATH] [--screenshots FOLDER]
The site (tools/make_site.py) is served on loopback only. What fails: a link inside the site that
doesn't answer or leads to no place on its page, a page that no link leads to, an error in the
console, a request to another machine, a serious fault that axe finds, a page wider than a phone,
TeX that isn't set, code that scrolls sideways at 1440 pixels, a hidden cell that shows, an exercise
without its answer. Needs the extras `docs` and `browser`, and a Chromium.
"""

import argparse
import multiprocessing
import re
import shutil
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from browser_test import Witness
from make_site import NEEDS_KERNEL, launchers, read, solutions
from serve import served
from settings import NOTEBOOKS, SITE

ROOT = Path(__file__).resolve().parent.parent
LIGHT, DARK, PHONE = "light", "dark", "phone"
DESK, POCKET = {"width": 1440, "height": 1000}, {"width": 390, "height": 844}
TALLEST = 6000  # pixels of a page in a picture
WALKERS = 2
# what Colab's, Binder's and GitHub's own pages hold is theirs
OUTSIDE = re.compile(r"https?://|mailto:")
SKELETON = (
    '<!doctype html><html lang="en"><head><title>{}</title><link rel="icon"'
    ' href="data:,"></head><body><main><h1>{}</h1>{}</main></body></html>'
)


class Anchors(HTMLParser):
    "What a page links to, and the places on it that links may lead to."

    def __init__(self, text: str):
        super().__init__()
        self.links, self.places = set(), {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.places |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        self.links |= {
            attrs[name] for name in ("href", "src") if attrs.get(name) is not None and tag != "base"
        }


class Cards(HTMLParser):
    "What a page says of itself in its head."

    def __init__(self, text: str):
        super().__init__()
        self.tags: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        a = dict(attributes)
        if tag == "meta" and (name := a.get("property") or a.get("name")):
            self.tags[name] = a.get("content") or ""


def check_links(folder: Path, base: str) -> tuple[list[str], list[str]]:
    "Follow every link from the front page: the pages found, and what is wrong."
    pages, answers, todo, problems = {}, {}, [base + "index.html"], []
    asked = []  # (page, link, address, place)
    while todo:
        url = todo.pop()
        if url in answers:
            continue
        try:
            with urllib.request.urlopen(url, timeout=30) as reply:
                answers[url] = reply.status
                body = reply.read() if reply.headers.get_content_type() == "text/html" else None
        except urllib.error.HTTPError as e:
            answers[url] = e.code
            continue
        if body is None:
            continue
        pages[url] = Anchors(body.decode())
        for link in pages[url].links:
            if OUTSIDE.match(link) or link.startswith(("data:", "javascript:")):
                continue
            address, _, place = urllib.parse.urljoin(url, link).partition("#")
            asked.append((url, link, address.partition("?")[0], urllib.parse.unquote(place)))
            todo.append(asked[-1][2])
    for url, link, address, place in asked:
        where = url.removeprefix(base)
        if answers[address] != 200:
            problems.append(f"{where}: {link} answers {answers[address]}")
        elif "=" in place:  # what the live page is to show, no place on it
            continue
        elif address in pages and place not in pages[address].places:
            problems.append(f"{where}: {link} leads to no place on its page")
    found = sorted(url.removeprefix(base) for url in pages)
    problems += [
        f"{name}: no link leads here"
        for p in sorted(folder.rglob("*.html"))
        if (name := p.relative_to(folder).as_posix()) not in found and "_static/" not in name
    ]
    return found, problems


def check_text(folder: Path) -> list[str]:
    "What a chapter must hold, and must not."
    problems, answers, asked = [], solutions(), 0
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        name, text = path.stem, (folder / f"{path.stem}.html").read_text(encoding="utf-8")
        cells = read(path)
        plain = re.sub(r"<[^>]+>", "", text)
        if "nbdev_export()" in plain or re.search(r"^#\|", plain, re.M):
            problems.append(f"{name}: a hidden cell or a directive shows")
        if not all(url.replace("&", "&amp;") in text for url in launchers(name)):
            problems.append(f"{name}: no link to Colab and Binder")
        folded = len(re.findall(r'<summary class="sd-summary-title', text))
        # notebooks with the same number share the numbers of the exercises, too
        prose = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        checks = set(re.findall(rf'check\("({name.split("_")[0]})\.(\d+)"', prose))
        expected = len(checks & {*answers})
        asked += expected
        if folded != expected:
            problems.append(f"{name}: expected {expected} folded answers, found {folded}")
        live = sum(
            NEEDS_KERNEL in "".join(o.get("data", {}).get("text/plain", ""))
            for c in cells
            for o in c.get("outputs", [])
        )
        if (notes := text.count("Needs a kernel")) != live:
            problems.append(f"{name}: expected {live} notes on a kernel, found {notes}")
        if name != "index" and not ("prev-next-info" in text):
            problems.append(f"{name}: no way to the next page")
    if asked != len(answers):
        problems.append(f"61_solutions: expected {len(answers)} exercises, found {asked}")
    return problems


def faults(page, rules: list[str] | None = None) -> list[str]:
    "What axe calls serious or critical."
    options = {"resultTypes": ["violations"], "preload": False} | (
        {"runOnly": {"type": "rule", "values": rules}} if rules else {}
    )
    return [
        f"axe, {v['id']}: {v['help']} ({len(v['nodes'])}): {v['nodes'][0]['html'][:150]}"
        for v in Axe().run(page, options=options).response["violations"]
        if v["impact"] in ("serious", "critical")
    ]


# code whose lines are wider than its box, at the width of a desk
SIDEWAYS = """() => [...document.querySelectorAll(".cell_input pre")]
  .filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.innerText.slice(0, 60))"""

# code is thousands of coloured words, but few colours: one word of each kind is enough for axe, and
# ten times as fast
ONE_OF_EACH = """() => {
  const seen = new Set(), again = [];
  for (const word of document.querySelectorAll("pre span[class]")) {
    const kind = word.className + (word.closest(".cell_output") ? " out" : "");
    if (seen.has(kind) && !word.querySelector("[id], a")) again.push(word); else seen.add(kind);
  }
  again.forEach(word => word.remove());
}"""


def visit(browser, base: str, name: str, shots: Path | None) -> list[str]:
    "One page in light, dark and at a phone's width; what is wrong with it."
    page = browser.new_page(viewport=DESK, color_scheme="light", reduced_motion="reduce")
    witness, problems = Witness(page), []
    page.on(
        "response",
        lambda r: witness.seen.append(f"status {r.status}: {r.url}") if r.status >= 400 else None,
    )

    def show(mode: str, scheme: str, size: dict):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        page.wait_for_timeout(50)
        if not shots or "/" in name:
            return  # chapters, and what else stands at the top
        height = min(page.evaluate("document.documentElement.scrollHeight"), TALLEST)
        page.screenshot(
            path=shots / f"{name.removesuffix('.html')}-{mode}.jpg",
            type="jpeg",
            quality=60,
            full_page=True,
            clip={"x": 0, "y": 0, "width": size["width"], "height": height},
        )

    page.goto(base + name)
    page.wait_for_load_state("networkidle")
    page.evaluate(
        "async () => { if (window.MathJax?.startup?.promise) await MathJax.startup.promise }"
    )
    page.add_style_tag(
        content="* { transition: none !important }"
    )  # a colour on its way is no colour
    formulas, done, wrong = page.evaluate(
        '[".math", ".math mjx-container", "mjx-merror, [data-mjx-error]"].map(q =>'
        " document.querySelectorAll(q).length)"
    )
    if done < formulas or wrong:
        problems.append(f"of {formulas} formulas {done} are set, {wrong} with errors")
    show(PHONE, "light", POCKET)
    width = page.evaluate("document.documentElement.scrollWidth")
    if width > POCKET["width"]:
        problems.append(f"{width} pixels wide on a phone of {POCKET['width']}")
    show(DARK, "dark", DESK)
    show(LIGHT, "light", DESK)
    problems += [f"code scrolls sideways: {text!r}" for text in page.evaluate(SIDEWAYS)]
    page.evaluate(ONE_OF_EACH)
    problems += faults(page)
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(50)
    problems += [
        f"dark: {fault}" for fault in faults(page, ["color-contrast", "link-in-text-block"])
    ]
    page.close()
    return [f"{name}: {p}" for p in witness.seen + problems]


def walk(chromium: str, base: str, names: list[str], shots: Path) -> list[str]:
    "Several pages, in a browser of their own."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        problems = [p for name in names for p in visit(browser, base, name, shots)]
        browser.close()
    return problems


CLUTTER = re.compile(
    # an exercise says in its text that it needs `check`
    r"System Settings|Open in Colab|\bfrom llama2_nb(?!\.practice import check)|\bimport numpy"
)


def search(page, base: str, word: str) -> tuple[list[str], str]:
    "The addresses that the search finds, and all that it shows of them."
    page.goto(f"{base}search.html?q={word}")
    page.wait_for_function(
        "document.querySelector('#search-results"
        " .search-summary')?.textContent.match(/found|did not match/)"
    )
    page.wait_for_load_state("networkidle")
    found = page.locator("#search-results li a").evaluate_all("links => links.map(a => a.href)")
    return found, page.locator("#search-results").inner_text()


def check_results(page, base: str) -> list[str]:
    "Menus, badges, imports and doubles among what the search shows."
    found, text = search(page, base, "attention")
    pages = [url.partition("#")[0].partition("?")[0] for url in found]
    problems = [f"search: {len(pages) - len(set(pages))} doubles"] * (len(set(pages)) < len(pages))
    return problems + [f"search: shows {clutter!r}" for clutter in set(CLUTTER.findall(text))]


def check_search(browser, base: str) -> list[str]:
    """Does the search find a word of the book, a function and nothing for nonsense, and does it
    show what the pages say?
    """
    page, problems = browser.new_page(), []
    for word, expected in {
        "nucleus": "08_sampling.html",
        "rope_cos_sin": "api/rope.html",
        "xqzzq": None,
    }.items():
        found, _ = search(page, base, word)
        if not (any(expected in url for url in found) if expected else not found):
            problems.append(f"search: {word} finds {found[:3]}")
    problems += check_results(page, base)
    page.route("**/site.js*", lambda route: route.abort())  # the control: without what cleans it
    if len(check_results(page, base)) < 2:
        problems.append("search: a control passed, clutter and doubles weren't seen")
    page.close()
    return problems


def check_cards(folder: Path, names: list[str]) -> list[str]:
    "What a link to a page shows elsewhere: a description of its own, and a picture that exists."
    problems, seen = [], {}
    for name in names:
        tags = Cards((folder / name).read_text(encoding="utf-8")).tags
        said, picture = tags.get("og:description", ""), tags.get("og:image", "")
        if not said or not tags.get("description") or CLUTTER.search(said):
            problems.append(f"{name}: is described as {said!r}")
        if said in seen:
            problems.append(f"{name}: is described as {seen[said]}")
        seen[said] = name
        if not (picture.startswith(SITE) and (folder / picture.removeprefix(SITE)).exists()):
            problems.append(f"{name}: its picture is {picture!r}")
    return problems


def controls(browser) -> list[str]:
    "Each fault, made on purpose, must be seen, and a page without one must pass."
    faulty = {
        "link": ('<a href="no.html">x</a>', "answers 404"),
        "place": ('<a href="index.html#nowhere">x</a>', "leads to no place"),
        "console": ("<script>console.error('wrong')</script>", "console: wrong"),
        "foreign": (
            '<img alt="x" src="http://elsewhere.invalid/x.png">',
            "request: http://elsewhere.invalid",
        ),
        "alt": (
            '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=">',
            "axe, image-alt",
        ),
        "contrast": ('<p style="color: #ddd; background: #fff">pale</p>', "axe, color-contrast"),
        "code": (
            (
                '<pre><span class="n" style="color: #ddd; background: #fff">pale</span> <span'
                ' class="n">dark</span></pre>'
            ),
            "axe, color-contrast",
        ),
        "wide": ('<div style="width: 2000px">wide</div>', "pixels wide"),
        "sideways": (
            '<div class="cell_input"><pre tabindex="0" style="overflow-x: auto">'
            f"{'wide ' * 400}</pre></div>",
            "code scrolls sideways",
        ),
        "math": ('<p class="math">x</p>', "formulas"),
        "alone": ("", "no link leads here"),
        "good": ('<a href="index.html">back</a>', None),
    }
    missed = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, (body, _) in faulty.items():
            (folder / f"{name}.html").write_text(
                SKELETON.format(name, name, body), encoding="utf-8"
            )
        index = "".join(f'<p><a href="{n}.html">{n}</a></p>' for n in faulty if n != "alone")
        (folder / "index.html").write_text(
            SKELETON.format("index", "index", index), encoding="utf-8"
        )
        with served(folder) as base:
            links = check_links(folder, base)[1]
            if len(check_cards(folder, ["good.html", "alone.html"])) < 4:
                missed.append("cards: expected pages without a description and a picture")
            for name, (_, expected) in faulty.items():
                seen = visit(browser, base, f"{name}.html", None) + [
                    p for p in links if p.startswith(f"{name}.html")
                ]
                if not (any(expected in s for s in seen) if expected else not seen):
                    missed.append(f"{name}: expected {expected}, saw {seen}")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found = next(
        (
            path
            for name in ("chromium", "google-chrome", "chromium-browser")
            if (path := shutil.which(name))
        ),
        None,
    )
    parser.add_argument("--site", type=Path, default=ROOT / "_docs")
    parser.add_argument(
        "--chromium", default=found, help="the browser (default: the one on the PATH)"
    )
    parser.add_argument(
        "--screenshots",
        type=Path,
        default=ROOT / "_proc/site-screenshots",
        help="where to keep what was seen",
    )
    options = parser.parse_args()
    if not options.chromium:
        parser.error("no Chromium on the PATH: name one with --chromium")
    options.screenshots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, served(options.site) as base:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox"]
        )
        if missed := controls(browser):
            print("faults made on purpose were not seen:", *missed, sep="\n  ")
            return 1
        pages, problems = check_links(options.site, base)
        problems += check_text(options.site) + check_search(browser, base)
        described = [name for name in pages if name not in ("search.html", "genindex.html")]
        problems += check_cards(options.site, described)
        browser.close()
        with ProcessPoolExecutor(WALKERS, multiprocessing.get_context("spawn")) as pool:
            for seen in [
                pool.submit(walk, options.chromium, base, pages[i::WALKERS], options.screenshots)
                for i in range(WALKERS)
            ]:
                problems += seen.result()
    print(*problems, sep="\n")
    print(f"{len(pages)} pages walked, {len(problems)} problems; pictures in {options.screenshots}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
