"""Operations that do not give under `vmap` what they give for each alone."""

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, jaxprs_in_params

# of random bits those of Threefry alone are the same; a callback may refuse
ALONE = frozenset({"rng_bit_generator", "pure_callback", "ffi_call"})


def runs_alone(e: JaxprEqn) -> bool:
    """Whether an equation has to run step by step, by itself or for one inside."""
    if e.primitive.name in ALONE:
        return True
    if any(runs_alone(e) for jaxpr in jaxprs_in_params(e.params) for e in jaxpr.eqns):
        return True
    dtypes = [getattr(v.aval, "dtype", bool) for v in (*e.invars, *e.outvars)]
    keys = {str(a) for a in dtypes if jnp.issubdtype(a, jax.dtypes.prng_key)}
    return bool(keys - {"key<fry>"})
