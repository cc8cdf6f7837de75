"""Package llama2_nb. Everything about it stands in settings.ini; this file only hands it over."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import Distribution, find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=["="])
ini.read(here / "settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]


def words(key: str) -> list[str]:
    "The values of a setting that lists requirements or scripts, separated by spaces."
    return cfg.get(key, "").split()


names = (
    "fast",
    "hf",
    "scale",
    "chapters",
    "notebook",
    "dev",
    "playground",
    "browser",
    "docs",
    "release",
    "oracles",
    "fuzz",
)
extras = {name: words(f"{name}_requirements") for name in names}
extras["dev"] += extras["hf"]
# the chapters test themselves, and that takes nbdev and its kin
extras["chapters"] += extras["dev"]
extras["notebook"] += words("chapters_requirements")
extras["dev"] = extras["notebook"] + extras["dev"] + words("checks_requirements")
extras["docs"] = extras["chapters"] + extras["docs"]
extras["browser"] = extras["playground"] + extras["browser"]


class Project(Distribution):
    has_data = Distribution.has_data_files  # the name under which an editable install looks for it


setup(
    distclass=Project,
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="MIT",
    url=cfg["git_url"],
    keywords=words("keywords"),
    packages=find_packages(include=[cfg["lib_path"], f"{cfg['lib_path']}.*"]),
    package_data={cfg["lib_path"]: ["models/*", "show/browser/*", "py.typed"]},
    python_requires=f">={cfg['min_python']}",
    install_requires=words("requirements"),
    # where Voilà looks for templates: a page that asks nothing of the network
    data_files=[
        (
            "share/jupyter/voila/templates/llama2_nb",
            ["llama2_nb/voila/conf.json", "llama2_nb/voila/index.html.j2"],
        )
    ],
    extras_require=extras,
    entry_points={
        "console_scripts": words("console_scripts"),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Education",
        "Programming Language :: Python :: 3",
    ],
    zip_safe=False,
)
