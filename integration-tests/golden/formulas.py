"""Numbers that are formulas of a name, so that no golden file has to hold its inputs; golden/mod.rs repeats them."""

import zlib

import numpy as np


def numbers(name, n):
    """n numbers in [0, 1) with 24 bits each: splitmix64 of the name's CRC-32 and the place."""
    with np.errstate(over="ignore"):
        z = (np.uint64(zlib.crc32(name.encode())) << np.uint64(32)) + np.arange(n, dtype=np.uint64)
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2.0**24
