"""Sets of permutations that are far from each other: the answers that a jigsaw puzzle is chosen from.

Two permutations that differ by one swap can't be told apart by most of the tiles. So each new one has the largest
minimum Hamming distance to those before it, first; among equals the largest mean; among those it is a random one.
VISSL's script and others take the largest mean alone, and soon hold pairs that differ by a swap. Noroozi & Favaro 2016,
https://arxiv.org/abs/1603.09246, Sec. 4.2: the average distance matters, and so does the minimum.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

TILES = 9  # 3 x 3


class PermutationSet(NamedTuple):
    """Different permutations uint8 (N, 9): entry t is the tile that comes to place t. And how far they are apart."""

    rows: np.ndarray
    least: int  # Hamming distance of two of them
    mean: float


@functools.cache
def permutation_set(count: int, seed: int = 0) -> PermutationSet:
    """`count` permutations of 9 tiles. A second for 1 000, a quarter of an hour for all 9!.

    Raises ValueError for fewer than 2 or more than 9!.
    """
    if not 2 <= count <= math.factorial(TILES):
        raise ValueError(f"There are {math.factorial(TILES)} permutations of {TILES} tiles, and {count} are asked for.")
    random = np.random.default_rng(seed)
    candidates = every_permutation()
    # Which candidates have tile v at place t: a distance to a permutation is nine of these rows, and one addition each.
    at_place = [[candidates[:, t] == v for v in range(TILES)] for t in range(TILES)]
    least = np.full(len(candidates), TILES + 1, np.uint8)
    total = np.zeros(len(candidates), np.uint32)
    chosen, pairs, nearest = [random.integers(len(candidates))], 0, TILES
    for _ in range(count - 1):
        equal = np.zeros(len(candidates), np.uint8)
        for t, v in enumerate(candidates[chosen[-1]]):
            equal += at_place[t][v]
        np.minimum(least, TILES - equal, out=least)
        total += TILES - equal
        nearest = int(least.max())  # it only falls: what is left is never farther than what was taken
        farthest = np.flatnonzero(least == nearest)
        among = total[farthest]
        pairs += int(among.max())
        chosen.append(random.choice(farthest[among == among.max()]))
    return PermutationSet(candidates[chosen], nearest, pairs / math.comb(count, 2))


def every_permutation() -> np.ndarray:
    """All 9! of them, uint8 (362880, 9), each new tile put to every place among those before it."""
    rows = np.zeros((1, 0), np.uint8)
    for tile in range(TILES):
        rows = np.concatenate([np.insert(rows, place, tile, axis=1) for place in range(tile + 1)])
    return rows

