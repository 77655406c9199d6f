"""Seeds and random numbers that depend on names, not on the order of calls: a resumed run draws what it would have."""

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed named by its parts, such as `derived_seed(0, "rollout", 3)`."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def uniforms(seeds: list[int], count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), `[len(seeds), count]`: row i depends on seeds[i] alone, column t on nothing before it.

    SplitMix64 (Steele, Lea, Flood 2014) in counter mode, 53 bits.
    """
    with np.errstate(over="ignore"):
        state = np.array(seeds, dtype=np.uint64)[:, None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64)[None, :]
        state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        state = state ^ state >> np.uint64(31)
    numbers: NDArray[np.float64] = (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers
