"""Scans for Flax Linen, in the place of those that it has.

The examples in docstrings run after these imports:

    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    import jaxseq.linen

All public names, by what they are for:

A lifted scan, and cells over time
    scan, over_time
"""

try:
    import flax as _flax  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "flax":
        raise
    _message = "jaxseq.linen needs Flax: pip install 'jaxseq[nn]'"
    raise ModuleNotFoundError(_message, name="flax") from _error

from jaxseq.linen._over_time import over_time as over_time
from jaxseq.linen._scan import scan as scan

__all__ = ["over_time", "scan"]
