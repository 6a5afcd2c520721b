"""The native kernels in a process that is forked, short of memory, or set up oddly.

Each is a process of its own, which says what it has done in its last line.
"""

import sys

import pytest

from tests.native.python import python

pytestmark = [
    pytest.mark.usefixtures("native_library"),
    pytest.mark.skipif(sys.platform != "linux", reason="it uses what Linux has"),
]

WHY = "jaxseq: there is no memory for what a call computes"

BEGINNING = """
import ctypes, os, resource, signal, threading
import jax, jax.numpy as jnp, numpy as np
import jaxseq

# else XLA runs a program in a thread of its own, which a fork does not have
jax.config.update("jax_cpu_enable_async_dispatch", False)

def lstm(B, T, D, H):
    params = jaxseq.lstm_init(jax.random.key(0), D, H)
    x = np.random.default_rng(0).standard_normal((B, T, D))
    return params, jnp.asarray(x, jnp.float32)

layer = lambda *args: jaxseq.lstm(*args, implementation="native")
forward = jax.jit(layer)
gradient = jax.jit(jax.grad(lambda *args: jnp.sin(layer(*args)[1]).sum(), (0, 1)))
bits = lambda out: [np.asarray(a).tobytes() for a in jax.tree.leaves(out)]

# rows in blocks, and few rows whose columns are shared by threads
ARGS = [lstm(40, 3, 5, 33), lstm(1, 3, 7, 251)]
every = lambda: [[bits(f(*args)) for f in (forward, gradient)] for args in ARGS]
expected = every()
"""


def said(code):
    command = "-W", "ignore", "-c", BEGINNING + code
    ran = python(*command, NPROC="4")  # threads of the pool of XLA
    return ran.stdout.splitlines()[-1]


def test_a_fork_computes_by_itself():
    """Its threads are not copied: whoever asks does all pieces."""
    assert (
        said("""
stop = False
def busy():
    while not stop:
        forward(*ARGS[0])
others = [threading.Thread(target=busy) for _ in range(2)]
def fork(child):
    if (pid := os.fork()) == 0:
        try:
            signal.alarm(300)  # ends it where it hangs
            os._exit(int(child()))
        except BaseException:
            os._exit(2)
    return os.waitpid(pid, 0)[1]
own = lambda: [bits(forward(*args)) for args in ARGS] != [a for a, _ in expected]
found = [fork(own) for _ in range(2)]
for thread in others:
    thread.start()
found += [fork(lambda: False) for _ in range(3)]  # while others call
stop = True
for thread in others:
    thread.join()
print(found, every() == expected)
""")
        == "[0, 0, 0, 0, 0] True"
    )


def test_without_memory():
    """An exception, and afterwards everything as before."""
    assert (
        said("""
like = jax.eval_shape(lambda: jaxseq.lstm_init(jax.random.key(0), 3, 2400))
params = jax.tree.map(lambda a: jnp.full(a.shape, 0.01), like)
args = params, jnp.ones((4, 9, 3))  # 92 MB if packed, more than arenas of malloc have
run = forward.lower(*args).compile()
def limited(bytes):
    now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + bytes, resource.RLIM_INFINITY))
    try:
        jax.block_until_ready(run(*args))
    except Exception as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
found = [limited(16 << 20) for _ in range(3)]
again = bits(run(*args)) == bits(run(*args))
print(*set(found), every() == expected and again)
""")
        == f"RESOURCE_EXHAUSTED: {WHY} True"
    )


def test_what_a_thread_is_set_up_for():
    """Another rounding mode, a small stack, a signal at every moment; the same bits."""
    assert (
        said("""
library = ctypes.CDLL(None)
UP = {"x86_64": 0x800, "aarch64": 0x400000}[os.uname().machine]
found = []
library.fesetround(UP)
found.append(every() == expected)
library.fesetround(0)
threading.stack_size(64 << 10)
small = threading.Thread(target=lambda: found.append(every() == expected))
small.start(), small.join()
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
found += [every() == expected for _ in range(5)]
signal.setitimer(signal.ITIMER_REAL, 0)
print(set(found), len(found))
""")
        == "{True} 7"
    )


def test_one_processor():
    """Four threads of the pool on it, and a caller that waits for them."""
    code = "print(all(every() == expected for _ in range(3)))"
    one = "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    assert said(one + code) == "True"
