"""LSTM kernels in Mosaic GPU that show whether an idea works; not part of jaxseq.

All take `z_x` (4, T, B, H), the input's product with its bias, `w_h` (4, H, H) with
the output first, `h` (B, H) and `c` (B, H) in float32, and return `y` (T, B, H) and
the last `c`. The weights of a thread block stay in its shared memory; `h` is passed
between blocks at every step.
"""
