"""PyTorch's `nn.LSTM`, `nn.GRU` and `nn.RNN` in any dtype; on a GPU that is cuDNN."""

from typing import Any

import numpy as np
import torch

from benchmarks.gpu.contenders import Contender
from benchmarks.gpu.kinds import TF32, Kind
from benchmarks.gpu.right import pick
from benchmarks.problem import Problem

NETS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def prepare(problem: Problem, mode: str, kind: Kind, device: str) -> Contender:
    op, _, w_x, w_h, b, _ = problem
    _, _, D, H = problem.shape
    net = NETS[op](D, H, batch_first=True)
    with torch.no_grad():
        arrays = (w_x.T, w_h.T, b, np.zeros_like(b))
        for weight, a in zip(net.parameters(), arrays, strict=True):
            weight.copy_(torch.from_numpy(a.astype(np.float32)))
    dtype = getattr(torch, np.dtype(kind.dtype).name)
    # the same device and dtype for all, and cuDNN's weights in one block
    net = net.to(device, dtype)
    put = lambda a: torch.from_numpy(a.astype(np.float32)).to(device, dtype)
    x, dy = put(problem.x), put(problem.dy)
    x.requires_grad_(mode == "gradient")
    weights = list(net.parameters())

    def launch() -> Any:
        torch.backends.cudnn.allow_tf32 = kind is TF32
        torch.backends.cuda.matmul.allow_tf32 = kind is TF32
        if mode == "forward":
            with torch.inference_mode():
                return net(x)[0]
        y = net(x)[0]
        return y.detach(), *torch.autograd.grad(y, (x, *weights), dy)

    def wait(_: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def array(a: Any) -> np.ndarray:
        return a.detach().float().cpu().numpy()

    def results() -> dict[str, np.ndarray]:
        out = launch()
        if mode == "forward":
            return {"y": array(pick(out))}
        y, x, w_x, w_h, b, b_h = out
        found = {"y": array(pick(y)), "x": array(pick(x))}
        found |= {"w_x": array(w_x).T, "w_h": array(w_h).T, "b": array(b)}
        return found | ({"b_hn": array(b_h)[2 * H :]} if op == "gru" else {})

    return Contender(launch, wait, results)
