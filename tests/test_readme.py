"""The README's code runs as it stands there, and its claims of weights hold."""

import ast
import re
from pathlib import Path

import jax
import numpy as np
import torch

import jaxseq

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_code_runs_block_after_block():
    jax.config.update("jax_enable_x64", False)  # as a user has it
    names = {}
    try:
        for block in BLOCKS:
            exec(block, names)
    finally:
        jax.config.update("jax_enable_x64", True)
    module = torch.nn.GRU(3, 4, batch_first=True, dtype=torch.float64)
    weights = [w.detach().numpy() for w in module.parameters()]
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    _, y = jaxseq.gru(names["gru_from_torch"](*weights), x)
    want = module(torch.tensor(x))[0].detach().numpy()
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-12)


def test_the_first_example_is_short():
    """As whoever reads sees it: its code without imports and blank lines."""
    assert BLOCKS, "README.md has no example"
    code = ast.parse(BLOCKS[0]).body
    imports = [node for node in code if isinstance(node, ast.Import | ast.ImportFrom)]
    own = [line for node in code if node not in imports for line in lines_of(node)]
    assert 0 < len(own) <= 12
    assert any("jaxseq" in ast.unparse(node) for node in imports)
    assert any("jaxseq." in line for line in own)


def lines_of(node):
    return ast.unparse(node).splitlines()
