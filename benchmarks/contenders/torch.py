"""PyTorch: `nn.RNN`, `nn.LSTM`, `nn.GRU`, batch first.

On a CPU with all cores or with one, whichever is faster for the problem.
"""

import os
from typing import Any

import numpy as np

from benchmarks.device import Device, cores
from benchmarks.prepare import Prepared
from benchmarks.problem import Problem
from benchmarks.timing import sample

# OpenMP threads that wait by spinning take the cores of whoever is timed next, and
# each other's on a busy machine: with 2 cores that was seen to cost a factor of 100
os.environ["OMP_WAIT_POLICY"] = "passive"

import torch

NETS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def runs_on(platform: str) -> bool:
    return platform == "cpu" or (platform == "gpu" and torch.cuda.is_available())


def prepare(problem: Problem, mode: str, device: Device) -> Prepared:
    torch.backends.cudnn.allow_tf32 = False
    on = "cpu" if device.platform == "cpu" else "cuda"
    op, _, w_x, w_h, b, _ = problem
    _, _, D, H = problem.shape
    net = NETS[op](D, H, batch_first=True)
    arrays = (w_x.T, w_h.T, b, np.zeros_like(b))
    with torch.no_grad():
        for weight, a in zip(net.parameters(), arrays, strict=True):
            weight.copy_(torch.from_numpy(a))
    net = net.to(on)
    weights = list(net.parameters())
    x, dy = (torch.from_numpy(a).to(on) for a in (problem.x, problem.dy))
    x.requires_grad_(mode == "gradient")

    def forward() -> Any:
        with torch.inference_mode():
            return net(x)[0]

    def gradient() -> Any:
        y = net(x)[0]
        return y, *torch.autograd.grad(y, (x, *weights), dy)

    def run() -> Any:
        out = forward() if mode == "forward" else gradient()
        if on == "cuda":
            torch.cuda.synchronize()
        return out

    def results() -> dict[str, np.ndarray]:
        if mode == "forward":
            return {"y": run().cpu().numpy()}
        y, x, w_x, w_h, b, b_h = (a.detach().cpu().numpy() for a in run())
        found = {"y": y, "x": x, "w_x": w_x.T, "w_h": w_h.T, "b": b}
        return found if op != "gru" else {**found, "b_hn": b_h[2 * H :]}

    def time_with(threads: int) -> float:
        torch.set_num_threads(threads)
        run()
        return min(sample(run) for _ in range(3))

    if on == "cpu":
        torch.set_num_threads(min((cores(), 1), key=time_with))
    return Prepared(run, results)
