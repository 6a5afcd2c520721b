"""Published numbers of TPUs.

Peak operations, HBM and the torus: Google Cloud, TPU v5e, TPU v4
(https://cloud.google.com/tpu/docs/v5e, https://cloud.google.com/tpu/docs/v4). Bytes of
a link and of the network, a hop and VMEM as 22 times HBM: Austin et al., How to Scale
Your Model (2025), parts 2 and 3 (https://jax-ml.github.io/scaling-book/tpus).
"""

from benchmarks.scaling.model import Chip

V5E = Chip(
    name="v5e",
    operations=197e12,
    hbm=819e9,
    link=45e9,
    network=3.125e9,
    slices={
        8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16),
    },
    wraps=16,
)  # fmt: skip
V4 = Chip(
    name="v4",
    operations=275e12,
    hbm=1200e9,
    link=45e9,
    network=6.25e9,
    slices={
        8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4), 128: (4, 4, 8),
        256: (4, 8, 8), 512: (8, 8, 8), 1024: (8, 8, 16),
    },
    wraps=4,
)  # fmt: skip
CHIPS = V5E, V4
COUNTS = 8, 16, 32, 64, 128, 256, 512, 1024
