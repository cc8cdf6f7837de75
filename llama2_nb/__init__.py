"""How a Llama 2 runs. `generate`, `stream` and `Llama` come from `llama2_nb.core`, which is
imported when one of them is first asked for: `import llama2_nb` alone loads nothing else.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama2_nb.core import Llama as Llama, generate as generate, stream as stream

__version__ = "0.1.0"
__all__ = ["Llama", "__version__", "generate", "stream"]


def __getattr__(name: str) -> object:
    "What `llama2_nb.core` defines, for the names of `__all__`."
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llama2_nb import core

    return getattr(core, name)


def __dir__() -> list[str]:
    "The names that are there, and those that are loaded when they are asked for."
    return sorted({*globals(), *__all__})
