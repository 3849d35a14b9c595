"""Rule 3: the margin loss, and the likelihood loss."""

from __future__ import annotations

from ..config import MemoryConfig
from ..primitives import Primitives
from ..state import NO_SLOT, Array


def loss_of(p: Primitives, config: MemoryConfig, similarities: Array, values: Array, targets: Array, positive: Array) -> Array:
    """The loss [B] f32 of similarities and values [B, k] of the neighbors, targets [B], and the similarity [B] of the best slot
    that has the target. Where there is no negative, both loss and gradient are 0."""
    is_negative = (values != NO_SLOT) & (values != targets[:, None])
    if config.loss == "nll":
        loss = _negative_log_likelihood(p, config, similarities, values == targets[:, None], is_negative, positive)
    else:
        first = p.xp.argmax(p.cast(is_negative, "int32"), axis=1)[:, None]
        hinge = p.take_along(similarities, first)[:, 0] - positive + config.margin
        loss = p.xp.where(p.constant(hinge) > 0, hinge, 0.0)  # where the hinge is closed, its gradient is 0 too
    return p.xp.where(p.xp.any(is_negative, axis=1), loss, 0.0)


def softmax(p: Primitives, logits: Array, present: Array) -> Array:
    """Rule 2's weights [B, k]: the softmax of logits [B, k], largest first, over those that are present [B, k]; else 0."""
    xp = p.xp
    top = p.constant(logits)[:, :1]
    powers = _powers(p, logits, top, present)
    total = xp.sum(powers, axis=1)[:, None]
    return powers / xp.where(present[:, :1], total, 1.0)


def _powers(p: Primitives, logits: Array, top: Array, present: Array) -> Array:
    """exp(logits - top) where present, else 0.

    Absent logits may be far above `top`. They are replaced before exp, which would overflow, also in the gradient.
    """
    return p.xp.where(present, p.xp.exp(p.xp.where(present, logits - top, 0.0)), 0.0)


def _negative_log_likelihood(
    p: Primitives, config: MemoryConfig, similarities: Array, is_positive: Array, is_negative: Array, positive: Array
) -> Array:
    """Minus the log of the softmax weight on the target. If no neighbor has it, the positive counts as one more neighbor.

    Both sums are taken relative to their largest power, so neither overflows or vanishes at any temperature.
    """
    xp = p.xp
    logits, best = config.softmax_temperature * similarities, config.softmax_temperature * positive
    nearest, highest = p.constant(logits)[:, 0], p.constant(best)
    top = xp.where(nearest > highest, nearest, highest)
    alone = ~xp.any(is_positive, axis=1)
    powers = _powers(p, logits, top[:, None], is_positive | is_negative)
    everyone = xp.sum(powers, axis=1) + xp.where(alone, xp.exp(best - top), 0.0)
    right = xp.sum(_powers(p, logits, highest[:, None], is_positive), axis=1)
    right = xp.where(alone, xp.exp(best - highest), right)
    return (xp.log(everyone) + top) - (xp.log(right) + highest)
