// A formula that is wider than the page scrolls; the keyboard must reach it.
const reach = () => document.querySelectorAll("mjx-container[display]").forEach(formula => {
  if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0; else formula.removeAttribute("tabindex");
});
addEventListener("load", () => window.MathJax?.startup?.promise?.then(reach));
addEventListener("resize", reach);

// The search shows a part of each page's text: what the page says, not its menus, badges and imports.
const NOT_TEXT = ".bd-header-article, #print-main-content, .bd-sidebar-secondary, .bd-toc, .open-in, .prev-next-footer, .bd-footer-content";
const IMPORTS = /^[ \t]*(from [\w.]+ )?import (\([^)]*\)|[^\n(]*)\n*/gm;
const results = document.getElementById("search-results");
if (results) {
  const toText = Search.htmlToText;
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    page.querySelectorAll(NOT_TEXT).forEach(part => part.remove());
    page.querySelectorAll(".cell_input pre").forEach(code => { code.textContent = code.textContent.replace(IMPORTS, ""); });
    return toText(page.documentElement.outerHTML, anchor).replace(/\s+/g, " ");
  };
  // a page that is found by its title, by a heading and by its text is one page: the first one stays
  const seen = new Set();
  new MutationObserver(changes => changes.flatMap(change => [...change.addedNodes]).forEach(node => {
    const link = node.nodeName === "LI" && node.querySelector("a");
    if (!link) return;
    const page = new URL(link.href).pathname;
    if (seen.has(page)) node.remove(); else seen.add(page);
  })).observe(results, { childList: true, subtree: true });
}
