"""The gate: one softmax over the network's own answer and the neighbors that the memory gives, learned from text held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.tasks.translation.evidence import Evidence, Whole

Floats = NDArray[np.float32]
Weights = dict[str, Floats]
HIDDEN = 24
RATE = 5e-3
BATCH = 512
STEPS = 2_000
"""In whole passes, and one at least."""
NEVER = -1e9


@dataclass(frozen=True)
class Gate:
    """A network of one hidden layer for the neighbors, and one for the network's own answer.

    Attributes:
        weights: of both, and the mean and the deviation of what they see.
        least: below this share in all, the memory is not heard at all; above 1: never.
    """

    weights: Weights
    least: float = 0.0

    def shares(self, seen: Evidence) -> Floats:
        """The share of the network's own answer and of each neighbor [T, 1 + k]; rows sum to 1."""
        shares = _forward(self.weights, *_scaled(self.weights, seen), seen.there)[0]
        quiet = 1 - shares[:, 0] < self.least
        shares[quiet] = 0
        shares[quiet, 0] = 1
        return shares


def mixed(probabilities: Floats, shares: Floats, values: Whole, there: NDArray[np.bool_]) -> Floats:
    """Probabilities [T, tokens] of the next token: those of the network, and the values of neighbors, by shares.

    Args:
        probabilities: by the network.
        shares: [T, 1 + k] of the network's answer and of each neighbor.
        values: [T, k], tokens.
        there: [T, k] which of them count.
    """
    joined = probabilities * shares[:, :1]
    np.add.at(joined, (np.arange(len(joined))[:, None], np.maximum(values, 0)), shares[:, 1:] * there)
    return joined


def learn(seen: Evidence, own: Floats, right: NDArray[np.bool_], weight: Floats, seed: int, steps: int = STEPS) -> Gate:
    """A gate under which the tokens that came are as likely as can be.

    Args:
        seen: what was known at T tokens.
        own: [T] the probability of the token that came, by the network.
        right: [T, k] the neighbors that stand for it.
        weight: [T] what each token counts.
        seed: of the first weights and the order.
        steps: of at most `BATCH` tokens; whole passes are made.
    """
    generator = np.random.default_rng([seed, 3])
    weights = _first(seen, generator)
    names = [name for name in weights if "/" not in name]
    moments = {name: (np.zeros_like(weights[name]), np.zeros_like(weights[name])) for name in names}
    gains = np.concatenate([own[:, None], right], axis=1)
    batches = -(-len(own) // BATCH)
    passes = max(1, round(steps / batches))
    steps, step = passes * batches, 0
    for _ in range(passes):
        order = generator.permutation(len(own))
        for start in range(0, len(own), BATCH):
            rows = order[start : start + BATCH]
            part = seen.part(rows)
            slopes = _slopes(weights, *_scaled(weights, part), part.there, gains[rows], weight[rows])
            step += 1
            for name in names:
                mean, square = moments[name]
                mean += 0.1 * (slopes[name] - mean)
                square += 0.001 * (slopes[name] ** 2 - square)
                change = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
                weights[name] -= (RATE * (1 - step / (steps + 1)) * change).astype(np.float32)
    return Gate(weights)


def _first(seen: Evidence, generator: np.random.Generator) -> Weights:
    weights: Weights = {}
    for name, rows in (("neighbors", seen.neighbors[seen.there]), ("context", seen.context)):
        weights[f"{name}/mean"], weights[f"{name}/deviation"] = rows.mean(0), rows.std(0) + np.float32(1e-3)
    sizes = {"neighbor": seen.neighbors.shape[2] + seen.context.shape[1], "network": seen.context.shape[1]}
    for name, size in sizes.items():
        weights[f"{name}_in"] = (generator.normal(size=(size, HIDDEN)) / np.sqrt(size)).astype(np.float32)
        weights[f"{name}_bias"] = np.zeros(HIDDEN, np.float32)
        weights[f"{name}_out"] = np.zeros(HIDDEN, np.float32)
    weights["start"] = np.array([4.0], np.float32)
    return weights


def _scaled(weights: Weights, seen: Evidence) -> tuple[Floats, Floats]:
    """What the gate sees, with mean 0 and deviation 1, beside each neighbor the whole: [T, k, features], [T, features]."""
    neighbors = (seen.neighbors - weights["neighbors/mean"]) / weights["neighbors/deviation"]
    context = (seen.context - weights["context/mean"]) / weights["context/deviation"]
    return neighbors, context


def _forward(weights: Weights, neighbors: Floats, context: Floats, there: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Shares [T, 1 + k], and both hidden layers [T, k, HIDDEN], [T, HIDDEN]."""
    count = neighbors.shape[2]
    part = context @ weights["neighbor_in"][count:] + weights["neighbor_bias"]
    hidden = np.tanh(neighbors @ weights["neighbor_in"][:count] + part[:, None])
    alone = np.tanh(context @ weights["network_in"] + weights["network_bias"])
    scores = np.where(there, hidden @ weights["neighbor_out"], NEVER)
    scores = np.concatenate([(alone @ weights["network_out"] + weights["start"])[:, None], scores], axis=1)
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32), hidden, alone


def _slopes(
    weights: Weights, neighbors: Floats, context: Floats, there: NDArray[np.bool_], gains: Floats, weight: Floats
) -> Weights:
    """The gradient of minus the mean log-likelihood."""
    shares, hidden, alone = _forward(weights, neighbors, context, there)
    likely = np.maximum((shares * gains).sum(1, keepdims=True), 1e-9)
    scores = shares * (1 - gains / likely) * (weight / weight.sum())[:, None]
    back = scores[:, 1:, None] * weights["neighbor_out"] * (1 - hidden**2)
    back_alone = scores[:, :1] * weights["network_out"] * (1 - alone**2)
    return {
        "neighbor_in": np.concatenate([np.einsum("tkf,tkh->fh", neighbors, back), context.T @ back.sum(1)]),
        "neighbor_bias": back.sum((0, 1)),
        "neighbor_out": np.einsum("tk,tkh->h", scores[:, 1:], hidden),
        "network_in": context.T @ back_alone,
        "network_bias": back_alone.sum(0),
        "network_out": alone.T @ scores[:, 0],
        "start": scores[:, :1].sum(0),
    }
