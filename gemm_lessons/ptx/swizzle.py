"""The 128-byte swizzle: where the 16-byte pieces of a row really lie.

    address bits   ... 9 8 7 | 6 5 4 | 3 2 1 0        bits 6 to 4 name the piece, 9 to 7 the row of eight
    piece becomes            piece ^ row

Eight rows of the same column then lie in eight different pieces, so a warp that reads a column of tiles
touches all 32 banks.  TMA, wgmma and whoever writes by hand must agree on it.  PTX manual: "Swizzling Modes".
"""

from __future__ import annotations

from typing import Any

import numpy as np

PIECE_BYTES = 16


def swizzled(address: int, num_bytes: int) -> np.ndarray[Any, Any]:
    """For each byte of a swizzled region, which byte of the plain one it holds.

    Args:
        address: where the region starts, a multiple of 128.
        num_bytes: a multiple of 128.

    Returns:
        int64 [num_bytes] with `region[i] == plain[swizzled(...)[i]]`.  The mapping is its own inverse.
    """
    here = address + np.arange(num_bytes)
    return (here ^ (here >> 7 & 7) << 4) - address
