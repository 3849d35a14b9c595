"""Rule 7: the age noise, a whole number that is a hash of (seed, step, slot).

All arithmetic is modulo 2**32, so it is the same to the bit on every framework and device. The mixing step is the 32-bit
finalizer of MurmurHash3 (Appleby, public domain). Slot numbers are mixed before they are multiplied: in C++ generated from a
framework's code, an i32 product that overflows is undefined, and a loop over slot numbers times a constant was seen to be cut
short for it.
"""

from __future__ import annotations

from ..config import MemoryConfig
from ..primitives import Primitives
from ..state import Array, wrap_int32

FIRST_FACTOR, SECOND_FACTOR = wrap_int32(0x85EBCA6B), wrap_int32(0xC2B2AE35)
"""Of the finalizer."""


def age_noise(p: Primitives, config: MemoryConfig, step: Array, slots: Array) -> Array:
    """Noise of `slots` [n] i32 at `step` [] i32: [n] i32 in [-age_noise, age_noise].

    `noise = (mix(mix(slot ^ (seed * 0x7FEB352D + 0x9E3779B1)) ^ step) & 0x7FFFFFFF) % (2 * age_noise + 1) - age_noise`
    """
    hashed = _mix(p, p.xp.bitwise_xor(slots, wrap_int32(config.seed * 0x7FEB352D + 0x9E3779B1)))
    hashed = _mix(p, p.xp.bitwise_xor(hashed, step))
    return p.xp.bitwise_and(hashed, 0x7FFFFFFF) % (2 * config.age_noise + 1) - config.age_noise


def _mix(p: Primitives, bits: Array) -> Array:
    bits = p.multiply(_xor_shifted(p, bits, 16), FIRST_FACTOR)
    bits = p.multiply(_xor_shifted(p, bits, 13), SECOND_FACTOR)
    return _xor_shifted(p, bits, 16)


def _xor_shifted(p: Primitives, bits: Array, count: int) -> Array:
    """`bits ^ (bits >> count)`, where zeros come in from the left."""
    shifted = p.xp.bitwise_and(p.xp.bitwise_right_shift(bits, count), (1 << (32 - count)) - 1)
    return p.xp.bitwise_xor(bits, shifted)
