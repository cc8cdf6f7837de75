"""Sphinx's settings for the site; tools/make_site.py writes its pages and calls it."""

import sys
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

_ini = ConfigParser(delimiters=["="])
_ini.read(Path(__file__).parents[2] / "settings.ini", encoding="utf-8")
_cfg = _ini["DEFAULT"]

project = _cfg["lib_name"]
author = _cfg["author"]
copyright = _cfg["copyright"]
version = release = _cfg["version"]
language = "en"
extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx.ext.mathjax",
    "sphinx.ext.autodoc",
    "sphinxext.opengraph",
    "comments",
]
autodoc_typehints = "description"  # beside the meaning of each parameter
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# the site needs no extra but `docs`: what isn't installed is imitated
WANTED = (
    "anywidget",
    "dask",
    "distributed",
    "ipywidgets",
    "llvmlite",
    "matplotlib",
    "numba",
    "threadpoolctl",
    "traitlets",
)
autodoc_mock_imports = [name for name in WANTED if find_spec(name) is None]
nb_execution_mode = "off"  # what is stored is shown
myst_enable_extensions = ["dollarmath", "colon_fence", "fieldlist", "deflist"]
myst_heading_anchors = 3
add_module_names = False
mathjax_path = "mathjax/tex-chtml.js"  # local, beside its fonts
mathjax3_config = {
    "options": {"enableMenu": False},
    "loader": {"load": ["[tex]/textmacros"]},
    "tex": {"packages": {"[+]": ["textmacros"]}},
}  # an escaped underscore within text

# what a link to a page shows elsewhere: title, the page's first words, one picture for all
ogp_site_url = f"{_cfg['doc_host']}{_cfg['doc_baseurl']}/"
ogp_site_name = project
ogp_image = f"{ogp_site_url}_static/card.png"
ogp_image_alt = (
    "The live page: a story, an arc from a comma to the name Ben, and 40 attention heads"
)
ogp_enable_meta_description = True
ogp_social_cards = {"enable": False}

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = [str(Path(__file__).parents[2] / "_proc/site/_static"), "static"]
html_extra_path = [str(Path(__file__).parents[2] / "_proc/site/_extra")]  # the live page
exclude_patterns = ["_extra"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_favicon = "static/icon.svg"
html_context = {"default_mode": "auto"}
html_copy_source = False  # the notebooks are on GitHub; these are made from them
html_show_sourcelink = False
html_domain_indices = False  # the list of modules is in the sidebar
html_baseurl = f"{_cfg['doc_host']}{_cfg['doc_baseurl']}/"
html_theme_options = {
    "logo": {
        "text": project,
        "image_light": "_static/icon.svg",
        "image_dark": "_static/icon.svg",
        "alt_text": "",
    },
    "navbar_persistent": [],  # one field for the search, in the sidebar
    "repository_url": _cfg["git_url"],
    "use_repository_button": True,
    "use_issues_button": True,
    "use_download_button": False,
    "show_toc_level": 2,
    "navigation_with_keys": False,
}
