"""Build your own Llama. `check` and `speak` come from `llama2_nb.practice.runner` and
`llama2_nb.practice.plug`, which are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama2_nb.practice.plug import speak as speak
    from llama2_nb.practice.runner import check as check

_PLACES = {"check": "llama2_nb.practice.runner:check", "speak": "llama2_nb.practice.plug:speak"}


def __getattr__(name: str) -> object:
    "`check`, which judges a function, and `speak`, which runs a model with it."
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llama2_nb.registry import on_demand

    return on_demand(_PLACES[name])
