"""For autodoc: docstrings in Markdown, and parameters explained by the comments beside them."""

import inspect
import re

from fastcore.docments import docments
from sphinx.util.typing import stringify_annotation


def to_rst(text: str) -> str:
    "A docstring or a comment as reStructuredText: `code` stays code, and nothing else is markup."
    out = ""
    for part in re.split(r"(`[^`]+`)", text):
        if part.startswith("`"):
            out += rf"\ `{part}`\ "
        else:
            out += re.sub(r"([\\*_|:`])", r"\\\1", part)
    return out


def fields(documented, skip: set[str]) -> list[str]:
    "Parameters and result as fields; autodoc adds the parameters' types."
    lines = []
    for name, about in docments(documented, full=True).items():
        if name in skip:
            continue
        comment = to_rst(" ".join((about.docment or "").split()))
        if name == "return":
            lines += [f":returns: {comment}"] if comment else []
            if about.anno not in (None, "None", inspect.Parameter.empty):
                lines.append(f":rtype: {stringify_annotation(about.anno, 'smart')}")
        else:
            lines.append(f":param {name}: {comment}")
    return lines


def add_comments(app, what: str, name: str, value, options, lines: list[str]) -> None:
    "What autodoc shows for a name."
    if what == "data":
        lines.clear()  # the docstring is that of the type; the page brings the comment
        return
    text = to_rst(inspect.getdoc(value) or "")
    value = getattr(value, "py_func", value)  # of a function that Numba compiles
    found = []
    if what == "class":
        own = "__init__" in vars(value) and not hasattr(value, "__dataclass_fields__")
        if own or getattr(value, "__annotations__", None):
            found = fields(value.__init__ if own else value, {"self", "return"})
    elif what in ("function", "method"):
        found = fields(getattr(value, "__func__", value), {"self", "cls"})
    lines[:] = [*text.splitlines(), "", *found, ""]


def only_code(app, what: str, name: str, value, skip: bool, options) -> bool:
    "Of a class, its methods and properties; not the fields, which stand among the parameters."
    return skip or not (inspect.isroutine(value) or isinstance(value, property))


def setup(app) -> dict:
    "Sphinx calls this."
    app.connect("autodoc-process-docstring", add_comments)
    app.connect("autodoc-skip-member", only_code)
    return {"parallel_read_safe": True}
