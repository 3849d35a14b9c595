"""How far two correct f32 implementations may differ: derived bounds.

`UNIT` is the unit roundoff u of f32: every rounded operation is right within a factor 1 + u. Summing n products in any order,
with or without fused multiply-add, is off by at most `gamma(n) = n u / (1 - n u)` times the sum of their magnitudes (Higham,
"Accuracy and Stability of Numerical Algorithms", section 3.1); for unit vectors that sum is at most 1 by Cauchy-Schwarz. The
oracle computes in f64 and rounds once. Inputs whose products and sums are exact in f32 need none of this: see `strategies`.
"""

from __future__ import annotations

import math

from raremem.config import MemoryConfig

UNIT = 2.0**-24

EXP_ULPS = 4
"""Error of the frameworks' exp in units in the last place; their documented bounds are 1 to 2."""


def gamma(terms: int) -> float:
    """Relative error of a sum of `terms` f32 products, in any order."""
    return terms * UNIT / (1 - terms * UNIT)


def unit_row(dim: int) -> float:
    """Error, in norm, of a normalised row: the sum of squares (halved by the root), root, quotient; and the oracle's u."""
    return gamma(dim) / 2 + 3 * UNIT + UNIT


def similarity(dim: int) -> float:
    """Error of a cosine: the row's, the product's, and the oracle's own rounding."""
    return (unit_row(dim) + gamma(dim) + UNIT) * (1 + 1e-3)


def loss(config: MemoryConfig, exact: bool) -> float:
    """Error of a row's loss; `exact`: the similarities are."""
    if config.loss == "nll":
        return negative_log_likelihood(config.key_dim, config.k, config.softmax_temperature, exact)
    return 0.0 if exact else hinge(config.key_dim, config.margin)


def hinge(dim: int, margin: float) -> float:
    """Error of a hinge: two similarities, and two roundings of a number no larger than 2 + margin (and the margin's)."""
    return 2 * similarity(dim) + 3 * UNIT * (2 + margin)


def negative_log_likelihood(dim: int, k: int, temperature: float, exact: bool) -> float:
    """Error of the difference of two log-sum-exps of at most k + 1 logits.

    A log-sum-exp moves by no more than its logits do: each is off by temperature times the similarity's error, by its own
    rounding and by that of its difference from the largest (2 temperature at most). Its powers are off by exp's ulps, their
    sum by gamma, and both come out of the log as absolute errors; the log rounds itself (`EXP_ULPS` again; log(k + 1) at
    most), and so do the two additions of a largest logit (temperature + log(k + 1) at most) and the final difference (2
    temperature + log(k + 1)). The oracle rounds the result once.
    """
    logit = temperature * ((0.0 if exact else similarity(dim)) + UNIT + 2 * UNIT)
    log = math.log(k + 1)
    sum_of_powers = logit + 2 * EXP_ULPS * UNIT + gamma(k + 1) + 2 * EXP_ULPS * UNIT * log + UNIT * (temperature + log)
    return 2 * sum_of_powers * (1 + 1e-3) + 2 * UNIT * (2 * temperature + log)


def weight(dim: int, k: int, temperature: float, exact: bool) -> float:
    """Relative error of a softmax weight.

    An error d in a logit is one of exp(2 d) - 1 at most in the weight. In a logit: the similarity's error, and the roundings
    of the product with the temperature and of the difference from the largest (2 temperature at most). Then exp, the sum of k
    powers, the quotient, and the oracle's rounding.
    """
    logit = temperature * ((0.0 if exact else similarity(dim)) + UNIT + 2 * UNIT)
    growth = 2 * logit / (1 - 2 * logit) if logit < 0.25 else float("inf")
    return growth + 2 * (2 * EXP_ULPS * UNIT) + gamma(k) + 2 * UNIT


def score(dim: int, k: int, temperature: float, exact: bool) -> float:
    """Relative error of a sum of k softmax weights at most, none of them negative; and the oracle's rounding."""
    return weight(dim, k, temperature, exact) + gamma(k + 1) + UNIT


def merged_key(dim: int, queries: int, norm: float) -> float:
    """Error, in norm, of normalise(key + queries), where that sum has this norm.

    Each of the unit queries has its own error, and the sum of `queries + 1` unit vectors rounds by gamma of their total norm;
    division by a small norm magnifies both. Then the normalisation's own.
    """
    total = queries * unit_row(dim) + gamma(queries + 1) * (queries + 1)
    return 2 * total / norm + unit_row(dim)


def gradient(config: MemoryConfig, row_norm: float) -> float:
    """Error, in norm, of the gradient of a row's loss.

    That of the likelihood is temperature times the difference of two means of unit keys: as the margin's, but that each mean
    has relative errors in its weights (whose similarities may be inexact), and is a sum of k keys.
    """
    plain = hinge_gradient(config.key_dim, row_norm)
    if config.loss == "margin":
        return plain
    weights = weight(config.key_dim, config.k + 1, config.softmax_temperature, exact=False)
    return config.softmax_temperature * (plain + 2 * (weights + gamma(config.k + 1) + 2 * UNIT) / row_norm)


def retrieved_gradient(config: MemoryConfig, what: str, largest: float, row_norm: float) -> float:
    """Error, in norm, of the gradient of similarities, weights or a recall, each weighed by a factor no larger than `largest`.

    Of similarities: a sum of k unit keys, each pulled by its factor; each has half the error of the margin loss's two, and the
    sum rounds by gamma. Of weights: the pulls are temperature * weight * (factor - mean), whose magnitudes add up to 2
    temperature * largest at most, and whose weights have relative errors, as their mean does. The factors of a recall are
    themselves sums of three products.
    """
    sum_of_keys = hinge_gradient(config.key_dim, row_norm) / 2 + (gamma(config.k) + UNIT) / row_norm
    if what == "similarities":
        return config.k * largest * sum_of_keys
    relative = 2 * weight(config.key_dim, config.k, config.softmax_temperature, exact=False) + gamma(config.k) + 6 * UNIT
    pulls = 2 * config.softmax_temperature * largest
    return pulls * (sum_of_keys + (relative + gamma(4)) / row_norm) * (1 + 1e-3)


def hinge_gradient(dim: int, row_norm: float) -> float:
    """Error, in norm, of the margin loss gradient (I - u u^T)(k_neg - k_pos) / |row|.

    |k_neg - k_pos| is at most 2. The unit row enters twice (2 unit_row), the inner product and the backward of the norm are
    sums of `dim` (2 gamma), and about eight scalings round once each.
    """
    return 2 * (2 * unit_row(dim) + 2 * gamma(dim) + 8 * UNIT) / row_norm
