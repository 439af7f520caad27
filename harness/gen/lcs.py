"""The longest common subsequence of one text with each of a pool, bit-parallel, compiled by numba.

Apart from harness.gen.similarity because numba takes most of a second to import. Nothing is
cached on disk: numba writes such a cache beside the source or below HOME and runs what it finds
there, and a container may have neither a writable package folder nor a HOME of its own.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harness.gen.similarity import FIRST, FURTHER

_INDEX = np.uint32(FIRST - 1)
_FIRST, _FURTHER = np.uint32(FIRST), np.uint32(FURTHER)
_ALL_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_ODD, _PAIRS, _NIBBLES, _BYTES = (
    np.uint64(0x5555555555555555),
    np.uint64(0x3333333333333333),
    np.uint64(0x0F0F0F0F0F0F0F0F),
    np.uint64(0x0101010101010101),
)
_ONE, _TWO, _FOUR, _TOP_BYTE = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def f_measures(
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    places: NDArray[np.uint32],
    masks: NDArray[np.uint64],
    owners: NDArray[np.int32],
    lengths: NDArray[np.int32],
    new: int,
) -> NDArray[np.float64]:
    """ROUGE-L's F of a new text with each text of the pool.

    Hyyrö's recurrence (2004, "Bit-parallel LCS-length computation revisited"),
    V = (V + (V & M)) | (V & ~M), with the bits of V over a pool text's positions and the new text's
    tokens as the steps: a step touches only the texts that have its token. A text of more than 64
    tokens has several words, through which the carry of the sum runs.

    `starts` and `ends`: for each token of the new text that the pool knows, in order, its entries
    in `places` and `masks`; the words of one text in one token's entries stand together.
    `places`: index of the text, or with FURTHER set, index of a word in `owners`. `masks`: M.
    `owners`: the text of each further word. `lengths` of the pool's texts and `new`, that of the
    new text, in tokens. The F are in the order of `lengths`.
    """
    texts = np.uint64(lengths.size)
    v = np.full(lengths.size + owners.size, _ALL_ONES, np.uint64)
    carry = np.uint64(0)
    for step in range(starts.size):
        for entry in range(starts[step], ends[step]):
            place = places[entry]
            if place < _FIRST:
                old = v[place]
                hit = old & masks[entry]
                v[place] = (old + hit) | (old - hit)
            else:
                index = np.uint64(place & _INDEX)
                if place < _FURTHER:
                    carry = np.uint64(0)
                else:
                    index += texts
                old = v[index]
                hit = old & masks[entry]
                part = old + hit
                total = part + carry
                v[index] = total | (old - hit)
                carry = np.uint64((part < old) | (total < part))
    common = np.empty(v.size, np.int32)
    for word in range(v.size):  # the zeros of each word
        bits = ~v[word]
        bits -= (bits >> _ONE) & _ODD
        bits = (bits & _PAIRS) + ((bits >> _TWO) & _PAIRS)
        bits = (bits + (bits >> _FOUR)) & _NIBBLES
        common[word] = np.int32((bits * _BYTES) >> _TOP_BYTE)
    for further in range(owners.size):
        common[owners[further]] += common[lengths.size + further]
    result = np.empty(lengths.size, np.float64)
    for text in range(lengths.size):
        precision, recall = common[text] / new, common[text] / lengths[text]
        f = 2 * precision * recall / (precision + recall)
        result[text] = f if common[text] > 0 else 0.0
    return result
