"""How many clusters of thread blocks the GPU holds at once, asked of its driver."""

import ctypes
from collections.abc import Iterator
from typing import Any

PTX = b"""
.version 7.8
.target sm_90
.address_size 64
.visible .entry empty() { ret; }
"""
CLUSTER_DIMENSION = 4  # of CUlaunchAttributeID
DYNAMIC_SHARED_MEMORY, NON_PORTABLE_CLUSTER = 8, 14  # of CUfunction_attribute
CLUSTERS = (1, 2, 4, 8, 12, 16)
KILOBYTES = (0, 64, 128, 160, 200, 227)


class Attribute(ctypes.Structure):
    """CUlaunchAttribute with a cluster dimension as its value."""

    _fields_ = (
        ("id", ctypes.c_uint),
        ("pad", ctypes.c_uint),
        ("value", ctypes.c_uint * 16),
    )


class Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_memory", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(Attribute)),
        ("count", ctypes.c_uint),
    )


def clusters_at_once(threads: int = 128) -> Iterator[dict[str, Any]]:
    """A row for each amount of shared memory a block."""
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name: str, *args: Any) -> None:
        code = getattr(cuda, name)(*args)
        if code:
            raise OSError(f"{name} returned {code}")

    context, module, function = (ctypes.c_void_p() for _ in range(3))
    call("cuInit", 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    call("cuCtxSetCurrent", context)
    try:
        call("cuModuleLoadData", ctypes.byref(module), PTX)
        call("cuModuleGetFunction", ctypes.byref(function), module, b"empty")
        call("cuFuncSetAttribute", function, NON_PORTABLE_CLUSTER, 1)
        call("cuFuncSetAttribute", function, DYNAMIC_SHARED_MEMORY, 227 * 1024)
        for kilobytes in KILOBYTES:
            found = {}
            for size in CLUSTERS:
                config = Config((size * 64, 1, 1), (threads, 1, 1), kilobytes * 1024)
                attribute = Attribute(CLUSTER_DIMENSION, 0, (size, 1, 1))
                config.attributes, config.count = ctypes.pointer(attribute), 1
                n = ctypes.c_int()
                args = (ctypes.byref(n), function, ctypes.byref(config))
                code = cuda.cuOccupancyMaxActiveClusters(*args)
                found[str(size)] = n.value if code == 0 else f"error {code}"
            row: dict[str, Any] = {"measure": "clusters at once", "threads": threads}
            yield {**row, "shared_memory_kb": kilobytes, "by_size": found}
    finally:
        call("cuCtxSetCurrent", None)
        call("cuDevicePrimaryCtxRelease_v2", 0)
