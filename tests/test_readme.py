"""The README's code runs as it stands there, and its claims of weights hold."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxseq

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """What the code of all blocks, run one after the other, defines."""
    jax.config.update("jax_enable_x64", False)  # as a user has it
    names = {}
    try:
        for block in BLOCKS:
            exec(block, names)
    finally:
        jax.config.update("jax_enable_x64", True)
    return names


def test_code_runs_block_after_block(names):
    assert names["jaxseq"] is jaxseq


def test_weights_of_pytorch(names):
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(3, 4, batch_first=True, dtype=torch.float64)
    weights = [w.detach().numpy() for w in module.parameters()]
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    _, y = jaxseq.gru(names["gru_from_torch"](*weights), x)
    want = module(torch.tensor(x))[0].detach().numpy()
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-12)


def test_the_first_example_is_short():
    """No line but its imports and blank ones is left out of the count."""
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    imports = [line for line in lines if re.match(r"(from|import) ", line)]
    assert "import jaxseq" in imports
    own = [line for line in lines if line not in imports]
    assert any("jaxseq." in line for line in own) and len(own) <= 12
