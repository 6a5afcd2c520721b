"""The handwritten digits of MNIST."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from experiments import datasets
from experiments.frame.errors import InputError


def mnist(data_dir: Path | None) -> tuple[np.ndarray, np.ndarray, tuple[range, ...]]:
    """Images `(N, 28, 28)`, labels, and which are to train on, held out, to test."""
    read = lambda file: idx(datasets.fetch("mnist", file, data_dir))
    files = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")
    pixels = np.concatenate([read(file) for file in files])
    files = ("train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
    labels = np.concatenate([read(file) for file in files])
    if not 60_000 < len(pixels) == len(labels):
        n = f"{len(pixels):,} images and {len(labels):,} labels"
        raise InputError(f"mnist: {n}, 70,000 of each expected")
    parts = (range(55_000), range(55_000, 60_000), range(60_000, len(pixels)))
    return pixels.astype(np.float32) / 255, labels, parts


def idx(path: Path) -> np.ndarray:
    """The array of bytes of an IDX file, plain or packed."""
    try:
        opener: Any = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            content = file.read()
        zero, kind, rank = int.from_bytes(content[:2]), content[2], content[3]
        shape = np.frombuffer(content, ">u4", rank, 4)
        if zero or kind != 8:
            raise ValueError
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as e:
        raise InputError(f"{path}: not an IDX file of bytes") from e
