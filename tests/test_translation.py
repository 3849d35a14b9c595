"""Translation on a tiny scale: a made-up language in which one word of each sentence is rare."""

from collections import Counter

import numpy as np
import pytest

from raremem.benchmarks.translation.corpus import Corpus, Sentences
from raremem.benchmarks.translation.recipe import Recipe
from raremem.benchmarks.translation.run import Text, make_learner, measure

COMMON, RARE = 12, 120


def sentences(generator, count, rare):
    """Common words, word for word, and one rare word."""
    source, target = [], []
    for number in range(count):
        words = generator.integers(0, COMMON, 4)
        name = rare[number % len(rare)]
        source.append(" ".join([f"c{word}" for word in words] + [f"xxx{name:03d}"]))
        target.append(" ".join([f"k{word}" for word in words] + [f"yyy{name:03d}"]))
    return Sentences(source, target)


@pytest.fixture(scope="module")
def corpus():
    generator = np.random.default_rng(0)
    train = sentences(generator, 480, np.arange(RARE // 2))
    test = sentences(generator, 2 * RARE // 2, np.repeat(np.arange(RARE // 2, RARE), 2))
    everything = Sentences(train.source + test.source * 2, train.target + test.target * 2)
    return Corpus(train, test), everything


def trained(backend, corpus, memory, monkeypatch):
    recipe = Recipe(
        steps=150, subwords=600, batch=16, dim=48, key_dim=32, slots=2048, neighbors=4, rare=16, memory=memory, dropout=0.0
    )
    whole, everything = corpus
    text = Text(Corpus(everything, whole.test), recipe)
    text.train, text.seen = text.pairs(whole.train), Counter()
    learner = make_learner(backend, recipe, text.subwords.size)
    losses = [learner.learn(*text.batch_at(step, recipe.steps)) for step in range(recipe.steps)]
    return losses, measure(learner, text, whole.test)
