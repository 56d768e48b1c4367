"""Vega-Lite as text for a page that loads nothing: the extra ``report`` brings it, as the package vl-convert-python."""

from functools import lru_cache
from importlib.util import find_spec

HOW_TO_GET_IT = "pip install 'ncflow[report]'"

# The bundle is a module; what the page's script needs of it is put in its reach.
_REACH = "window.vegaEmbed = vegaEmbed;"


def is_installed() -> bool:
    """Whether there can be charts."""
    return find_spec("vl_convert") is not None


@lru_cache(maxsize=1)
def bundle() -> str | None:
    """Vega, Vega-Lite and Vega-Embed as one script of 0.9 MB; None where they are not installed."""
    if not is_installed():
        return None
    import vl_convert

    return str(vl_convert.javascript_bundle(_REACH))
