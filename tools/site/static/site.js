// A formula that is wider than the page scrolls; the keyboard must reach it.
const reach = () => document.querySelectorAll("mjx-container[display]").forEach(formula => {
  if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0; else formula.removeAttribute("tabindex");
});
addEventListener("load", () => window.MathJax?.startup?.promise?.then(reach));
addEventListener("resize", reach);
