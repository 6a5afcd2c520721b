"""PyTorch: `nn.RNN`, `nn.LSTM`, `nn.GRU`, batch first; on a GPU that is cuDNN.

Its threads wait as its users' do, by spinning for a while, so a pause follows. On a
CPU it runs with all cores or with one, whichever is faster for the case.
"""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.contender import Contender, Values, numbered
from benchmarks.device import cores
from benchmarks.errors import Unsupported
from benchmarks.problem import Problem
from benchmarks.timing import fitting, take_turns

NETS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
CELLS = {"rnn": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}
TRIES = 9  # samples of each number of threads, fewer if they take longer than
TRIES_S = 3.0


def runs_on(platform: str) -> bool:
    return platform == "cpu" or (platform == "gpu" and torch.cuda.is_available())


def prepare(problem: Problem, device: Any, repeats: int) -> Contender:
    if problem.case.resets:
        raise Unsupported("no resets")
    on = "cpu" if device.platform == "cpu" else "cuda"
    mode = problem.case.mode
    how: Any = {"stream": stream, "eager stream": stream, "decode": decode}
    found = how.get(mode, sequence)(problem, on)
    if on == "cuda":
        tf32 = problem.case.dtype == "tf32"
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        return found._replace(wait=lambda _: torch.cuda.synchronize(), pause=0)
    return at_the_better_threads(found, TRIES if repeats > 1 else 0)


def at_the_better_threads(contender: Contender, tries: int) -> Contender:
    def launch(threads: int) -> Callable[[], Any]:
        def run() -> Any:
            # of the process, so it may have changed since; setting it takes time
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            return contender.launch()

        return run

    found = {
        str(n): contender._replace(launch=launch(n), threads=n, wait=lambda _: None)
        for n in sorted({1, cores()})
    }
    best = str(cores())
    if tries:
        for each in found.values():  # the first call is slow
            each.launch()
        _, tries = fitting(found, tries, seconds=TRIES_S)
        times = take_turns(found, tries, sample_ms=20)
        best = min(times, key=lambda n: statistics.median(times[n]))
    return found[best]._replace(pause=0.1)


def tensor(a: np.ndarray, on: str, like: np.ndarray | None = None) -> torch.Tensor:
    dtype = getattr(torch, (a if like is None else like).dtype.name)
    return torch.from_numpy(np.ascontiguousarray(a.astype(np.float32))).to(on, dtype)


def array(a: torch.Tensor) -> np.ndarray:
    return a.detach().float().cpu().numpy()


def fill(net: torch.nn.Module, problem: Problem, on: str) -> list[Any]:
    """Puts the weights into `net`, whose order of parameters is ours; returns them."""
    arrays = [
        a.astype(np.float32)
        for w in problem.weights
        for a in (w.w_x.T, w.w_h.T, w.b, np.zeros_like(w.b))
    ]
    with torch.no_grad():
        for weight, a in zip(net.parameters(), arrays, strict=True):
            weight.copy_(torch.from_numpy(a))
    # of the same device and dtype, and cuDNN's weights in one block
    net.to(on, getattr(torch, problem.x.dtype.name))
    return list(net.parameters())


def sequence(problem: Problem, on: str) -> Contender:
    case = problem.case
    net: Any = NETS[case.op](
        case.D,
        case.H,
        num_layers=case.layers,
        bidirectional=case.bidirectional,
        batch_first=True,
    )
    weights = fill(net, problem, on)
    x, dy = tensor(problem.x, on), tensor(problem.dy, on)
    x.requires_grad_(case.mode.endswith("gradient"))
    lengths = None if problem.lengths is None else torch.from_numpy(problem.lengths)

    def run() -> Any:
        if lengths is None:
            return net(x)[0]
        how = {"batch_first": True, "enforce_sorted": False}
        packed = net(pack_padded_sequence(x, lengths, **how))[0]
        return pad_packed_sequence(packed, batch_first=True, total_length=case.T)[0]

    def launch() -> Any:
        if not case.mode.endswith("gradient"):
            with torch.inference_mode():
                return run()
        y = run()
        return y.detach(), *torch.autograd.grad(y, (x, *weights), dy)

    def results() -> Values:
        if not case.mode.endswith("gradient"):
            return {"y": array(launch())}
        y, dx, *gradients = map(array, launch())
        found = []
        for i in range(0, len(gradients), 4):
            w_x, w_h, b, b_h = gradients[i : i + 4]
            named = {"w_x": w_x.T, "w_h": w_h.T, "b": b}
            named |= {"b_hn": b_h[2 * case.H :]} if case.op == "gru" else {}
            found.append(named)
        return {"y": y, "x": dx, **numbered(found)}

    return Contender(launch, results)


def cell_of(problem: Problem, on: str) -> tuple[Any, Any]:
    """A cell as `(state, x) -> (state, y)`, and its state of zeros."""
    case = problem.case
    cell: Any = CELLS[case.op](case.D, case.H)
    fill(cell, problem, on)
    zeros = tensor(np.zeros((case.B, case.H)), on, problem.x)

    def step(state: Any, x: Any) -> Any:
        state = cell(x, state)
        return state, state[0] if case.op == "lstm" else state

    return step, (zeros, zeros) if case.op == "lstm" else zeros


def stream(problem: Problem, on: str) -> Contender:
    step, zeros = cell_of(problem, on)
    inputs = tensor(np.moveaxis(problem.x, 1, 0), on).unbind()

    def launch() -> Any:
        state, outputs = zeros, []
        with torch.inference_mode():
            for x in inputs:
                state, y = step(state, x)
                outputs.append(y)
        return outputs

    return Contender(launch, lambda: {"y": array(torch.stack(launch(), 1))})


def decode(problem: Problem, on: str) -> Contender:
    assert problem.embed is not None and problem.out is not None
    step, zeros = cell_of(problem, on)
    embed, out = tensor(problem.embed, on), tensor(problem.out, on)
    first = torch.zeros(problem.case.B, dtype=torch.int64, device=on)

    def launch() -> Any:
        state, token, tokens = zeros, first, []
        with torch.inference_mode():
            for _ in range(problem.case.T):
                state, y = step(state, embed[token])
                token = (y @ out).argmax(-1)
                tokens.append(token)
        return torch.stack(tokens, 1)

    return Contender(launch, lambda: {"tokens": launch().cpu().numpy()})
