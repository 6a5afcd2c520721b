"""What eight TPU chips sum of 16-bit gradients, in a process of its own.

`python -m tests.tpu_sums` compiles training steps for chips that are not there, and
fails if a sum over them is in 16 bits. XLA for TPUs moves casts before such sums, which
on other platforms it does not.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.slices.sent import collectives, wrong
from tests.test_collectives import LOSSES, descent

jax.config.update("jax_platforms", "cpu")
NAMES = "gru", "crf", "bahdanau", "transformer"


def narrowed(a, sharding):
    floats = jnp.issubdtype(a.dtype, jnp.floating)
    dtype = jnp.bfloat16 if floats else a.dtype
    return jax.ShapeDtypeStruct(a.shape, dtype, sharding=sharding)


def main():
    devices = topologies.get_topology_desc("v5e:2x4", "tpu").devices
    mesh = jax.sharding.Mesh(np.array(devices), ("d",))
    at = lambda tree, spec: jax.tree.map(
        lambda a: narrowed(a, NamedSharding(mesh, spec)), tree
    )
    for name in NAMES:
        loss, params, data = LOSSES[name]
        data = jax.tree.map(lambda a: np.concatenate([a] * 4), data)
        step = jax.jit(descent(loss))
        compiled = step.lower(at(params, P()), *at(data, P("d"))).compile()
        found = collectives(compiled.as_text())
        assert found and not wrong(found), (name, found)
        print(f"{name}: {len(found)} arrays in float32")


if __name__ == "__main__":
    main()
