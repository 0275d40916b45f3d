"""Deterministic weights and inputs, from names alone (numpy only)."""

import zlib

import numpy as np


def generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def parameter(name: str, shape: tuple) -> np.ndarray:
    """The array that the manifest's entry `name` holds; float32, or int64 for num_batches_tracked."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    noise = generator(name).standard_normal(shape, dtype=np.float32)
    if name.endswith("running_var"):
        return (1.0 + 0.1 * np.abs(noise)).astype(np.float32)
    if name.endswith("running_mean"):
        return (0.1 * noise).astype(np.float32)
    if len(shape) >= 2:
        fan_in = int(np.prod(shape[1:]))
        # In float64, as NumPy 2 multiplies by a scalar of float64; NumPy 1 would stay in float32.
        return (noise.astype(np.float64) * np.sqrt(2.0 / fan_in)).astype(np.float32)
    if name.endswith("weight"):  # a norm's scale (or a one-element slope)
        return (1.0 + 0.1 * noise).astype(np.float32)
    return (0.05 * noise).astype(np.float32)


def image(name: str, shape: tuple) -> np.ndarray:
    """A standard-normal input named `name`, float32."""
    return generator("input/" + name).standard_normal(shape, dtype=np.float32)


def mask(name: str, shape: tuple) -> np.ndarray:
    """A binary target named `name`, float32, about 2% ones."""
    return (generator("mask/" + name).random(shape) > 0.98).astype(np.float32)
