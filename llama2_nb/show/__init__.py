"""Pictures and controls. `explorer` comes from `llama2_nb.show.live`, which is imported when it is
first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama2_nb.show.live import explorer as explorer


def __getattr__(name: str) -> object:
    "`explorer`, the live page in a notebook."
    if name != "explorer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llama2_nb.show import live

    return live.explorer
