"""Conversion of weights from and to other frameworks and file formats.

The examples in docstrings run after these imports:

    import jax
    import jax.numpy as jnp

    import jaxseq
    import jaxseq.convert

All public names, by what they are for:

What weights are converted to and from
    Network

PyTorch
    from_torch, to_torch

Keras
    from_keras, to_keras

Flax NNX and Linen
    from_nnx, to_nnx, from_linen, to_linen

Haiku
    from_haiku, to_haiku

Equinox
    from_equinox, to_equinox

ONNX
    from_onnx, to_onnx, ONNXLayer

cuDNN, as in `jax.experimental.rnn`
    from_cudnn, to_cudnn

DyNet
    from_dynet, to_dynet
"""

from jaxseq.convert._cudnn import from_cudnn as from_cudnn
from jaxseq.convert._cudnn import to_cudnn as to_cudnn
from jaxseq.convert._dynet import from_dynet as from_dynet
from jaxseq.convert._dynet import to_dynet as to_dynet
from jaxseq.convert._equinox import from_equinox as from_equinox
from jaxseq.convert._equinox import to_equinox as to_equinox
from jaxseq.convert._flax_from import from_linen as from_linen
from jaxseq.convert._flax_from import from_nnx as from_nnx
from jaxseq.convert._flax_to import to_linen as to_linen
from jaxseq.convert._flax_to import to_nnx as to_nnx
from jaxseq.convert._haiku import from_haiku as from_haiku
from jaxseq.convert._haiku import to_haiku as to_haiku
from jaxseq.convert._keras import from_keras as from_keras
from jaxseq.convert._keras import to_keras as to_keras
from jaxseq.convert._network import Network as Network
from jaxseq.convert._onnx_from import ONNXLayer as ONNXLayer
from jaxseq.convert._onnx_from import from_onnx as from_onnx
from jaxseq.convert._onnx_to import to_onnx as to_onnx
from jaxseq.convert._torch import from_torch as from_torch
from jaxseq.convert._torch import to_torch as to_torch

__all__ = [
    "Network",
    "ONNXLayer",
    "from_cudnn",
    "from_dynet",
    "from_equinox",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_onnx",
    "from_torch",
    "to_cudnn",
    "to_dynet",
    "to_equinox",
    "to_haiku",
    "to_keras",
    "to_linen",
    "to_nnx",
    "to_onnx",
    "to_torch",
]
