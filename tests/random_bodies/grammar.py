"""All that bodies are drawn from. What stands twice is drawn twice as often."""

from tests.random_bodies import discrete, layers, pointwise, transforms
from tests.random_bodies.along_last import ALONG_LAST
from tests.random_bodies.draw import Grammar
from tests.random_bodies.products import PRODUCTS
from tests.random_bodies.weights import WEIGHTS

OPERATIONS = [
    *pointwise.POINTWISE,
    *ALONG_LAST,
    layers.bias,
    layers.gain,
    layers.layer_norm,
    layers.gates,
    discrete.reset,
    discrete.embedding,
    discrete.dropout_or_noise,
    discrete.slice_at_step,
    discrete.write_at_step,
    transforms.expression_in_call,
    transforms.product_in_call,
    transforms.cond,
    transforms.loop,
    transforms.vmap_over_rows,
    transforms.gradient,
    pointwise.complex_product,
    pointwise.in_float32,
    layers.attention_to_state,
    layers.fast_weights,
    pointwise.unread_and_flat,
]
GRAMMAR = Grammar(WEIGHTS, PRODUCTS, OPERATIONS)
