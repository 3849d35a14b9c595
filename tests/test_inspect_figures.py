"""The figures of `raremem inspect`, each against a plain computation."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raremem
from raremem.benchmarks.inspection import confusion, content, measures, words
from raremem.benchmarks.inspection.figures import accuracy, figures
from raremem.benchmarks.inspection.page import as_html
from raremem.benchmarks.inspection.text import summary

BACKEND = raremem.get_backend("numpy")
NEAR = 1e-5
"""Of two similarities in f32."""


def a_memory(seed, slots=12, filled=9, values=4, dim=3, **options):
    """A memory with slots of each kind, as a file holds it: keys on a coarse grid, so that some are equal."""
    generator = np.random.default_rng(seed)
    config = raremem.MemoryConfig(slots, dim, age_noise=3, seed=seed % 1000, **options)
    there = np.zeros(slots, bool)
    there[generator.choice(slots, filled, replace=False)] = True
    keys = generator.integers(-3, 4, (slots, dim)).astype(np.float32) + np.float32(0.25)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    portable = {
        "keys": np.where(there[:, None], keys, np.float32(0)),
        "values": np.where(there, generator.integers(0, values, slots), -1),
        "ages": np.where(there, generator.integers(0, 9, slots), 0),
        "filled": there,
        "hits": np.where(there, np.minimum(generator.geometric(0.3, slots) - 1, 127), 0),
        "step": 1234,
    }
    return as_content(config, portable)


def as_content(config, portable):
    state = BACKEND.from_numpy(config, portable)
    return content.Content("a memory", config, state, BACKEND.to_numpy(state))


memories = st.builds(
    lambda seed, filled, values, evict, write: a_memory(seed, 12, filled, values, evict=evict, write=write),
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 8),
    st.sampled_from(["oldest", "least_hit"]),
    st.sampled_from(["merge", "keep"]),
)


def similarities(memory, slot):
    """To every other filled slot, by slot, in Python's own numbers."""
    keys = memory.portable["keys"].tolist()
    others = [other for other in np.flatnonzero(memory.portable["filled"]).tolist() if other != slot]
    return {other: math.fsum(a * b for a, b in zip(keys[slot], keys[other], strict=True)) for other in others}


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30))
def test_a_histogram(numbers):
    found = measures.doubling(np.array(numbers, np.int32))
    assert [(first, last) for first, last, _ in found][:5] == [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15)][: len(found)]
    for first, last, slots in found:
        assert slots == len([number for number in numbers if first <= number <= last])
    assert sum(slots for *_, slots in found) == len(numbers)
    assert found[-1].slots > 0


def test_a_histogram_of_the_largest_numbers():
    found = measures.doubling(np.array([0, 2**31 - 1, 2**30 - 1], np.int32))
    assert [each.slots for each in found] == [1, *[0] * 29, 1, 1]
    assert words.bins(found, 2**31 - 1)[-1] == ("1,073,741,824 or more", 1)
    assert words.bins(measures.doubling(np.array([126, 127])), 127)[-1] == ("64 or more", 2)
    assert words.bins(measures.doubling(np.array([3])), 127)[-2:] == [("1", 0), ("2 to 3", 1)]


@given(memories)
def test_values_by_count(memory):
    counts = Counter(value for value in memory.portable["values"].tolist() if value != -1)
    found = measures.by_value(memory.portable["values"][memory.portable["filled"]])
    expected = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    assert list(zip(found.values.tolist(), found.slots.tolist(), strict=True)) == expected
    assert found.single == list(counts.values()).count(1)


@given(memories, st.integers(1, 5))
def test_the_slots_hit_most(memory, count):
    hits = memory.portable["hits"].tolist()
    expected = sorted((slot for slot in range(12) if hits[slot]), key=lambda slot: (-hits[slot], slot))[:count]
    assert measures.most_hit(memory, count).tolist() == expected


@settings(deadline=None)
@given(memories, st.integers(1, 14))
def test_what_would_go_next_goes_next(memory, count):
    """The oracle is given as many rows of a value that nothing has: they take the empty slots, and then these."""
    oracle = raremem.get_backend("reference")
    empty = int((~memory.portable["filled"]).sum())
    rows = min(empty + count, memory.config.slots)
    generator = np.random.default_rng(0)
    state = oracle.from_numpy(memory.config, memory.portable)
    new, targets = generator.normal(size=(rows, 3)).astype(np.float32), np.full(rows, 99)
    _, report = oracle.update(memory.config, state, new, targets)
    found = measures.next_to_go(memory, count)
    assert found.slots.tolist() == np.asarray(report.slots)[empty:].tolist()
    assert all(-3 <= noise <= 3 for noise in found.noise)


def test_the_noise_is_that_of_the_choice():
    """Among slots of one age, the order is that of the noise shown."""
    memory = a_memory(5, 40, 40)
    memory = as_content(memory.config, {**memory.portable, "ages": np.full(40, 6)})
    found = measures.next_to_go(memory, 40)
    assert sorted(found.noise, reverse=True) == found.noise.tolist()
    assert len(set(found.noise.tolist())) == 7


@pytest.mark.parametrize("few", [1, 2, 32])
@settings(deadline=None)
@given(memory=memories)
def test_the_nearest_slots(memory, few):
    found = confusion.nearest(memory, few=few)
    values = memory.portable["values"].tolist()
    assert found.asked.tolist() == np.flatnonzero(memory.portable["filled"]).tolist()
    for row, slot in enumerate(found.asked.tolist()):
        near = similarities(memory, slot)
        others = {other: similarity for other, similarity in near.items() if values[other] != values[slot]}
        for name, candidates in (("nearest", near), ("other", others)):
            chosen = int(getattr(found, name)[row])
            assert (chosen in candidates) == bool(candidates), name
            if candidates:
                assert candidates[chosen] >= max(candidates.values()) - NEAR
        assert found.similarities[row] == pytest.approx(max(others.values(), default=0), abs=NEAR)


@settings(deadline=None)
@given(memories)
def test_accuracy_and_pairs(memory):
    found = confusion.nearest(memory)
    values, counts = memory.portable["values"].tolist(), Counter(memory.portable["values"].tolist())
    rows = list(zip(found.asked.tolist(), found.nearest.tolist(), found.other.tolist(), found.similarities, strict=True))
    if len(rows) > 1:
        told = accuracy(memory, found, measures.by_value(memory.portable["values"][memory.portable["filled"]]))
        assert told.right == len([slot for slot, nearest, *_ in rows if values[slot] == values[nearest]])
        assert told.asked == len(rows)
        assert told.repeated == len([slot for slot, *_ in rows if counts[values[slot]] > 1])
        assert told.error == 0
    confused, near, best, slots = Counter(), Counter(), {}, {}
    for slot, nearest, other, similarity in rows:
        if other == -1:
            continue
        pair = tuple(sorted((values[slot], values[other])))
        near[pair] += 1
        confused[pair] += nearest == other
        best[pair] = max(best.get(pair, -1), similarity)
        slots[tuple(sorted((slot, other)))] = similarity
    expected = sorted((-confused[pair], -near[pair], -best[pair], pair) for pair in near)
    assert [(-a, -b, -c, pair) for pair, a, b, c in confusion.pairs(found, memory.portable["values"])] == expected
    pairs = confusion.nearest_pairs(found, 3)
    assert len(pairs) == min(3, len(slots))
    assert [similarity for *_, similarity in pairs] == pytest.approx(sorted(slots.values(), reverse=True)[:3], abs=NEAR)
    assert all(slots[one, other] == pytest.approx(similarity, abs=NEAR) for one, other, similarity in pairs)


def test_a_sample_is_asked_of_all():
    memory = a_memory(0, 400, 400, 3, dim=8)
    found = confusion.nearest(memory, asked=50)
    assert len(set(found.asked.tolist())) == 50
    assert sorted(found.asked) == found.asked.tolist()
    assert {slot // 80 for slot in found.asked.tolist()} == {0, 1, 2, 3, 4}
    whole = confusion.nearest(memory)
    np.testing.assert_allclose(found.similarities, whole.similarities[found.asked], atol=NEAR)
    assert len(confusion.nearest(memory, products=400 * 8 * 20).asked) == 20
    assert len(confusion.nearest(memory, products=1).asked) == 1
    np.testing.assert_array_equal(confusion.nearest(memory, asked=50).asked, found.asked)
    told = accuracy(memory, found, measures.by_value(memory.portable["values"]))
    right = [memory.portable["values"][near] == memory.portable["values"][slot] for slot, near in zip(*found[:2], strict=True)]
    assert told.share == np.mean(right)
    share = (sum(right) + 2) / 54
    assert told.error == pytest.approx(1.96 * math.sqrt(share * (1 - share) / 54))
    shown = replace(figures(memory), nearest=found, accuracy=told)
    for text in (as_html("m", memory, shown), summary("m", memory, shown)):
        assert "50 of 400 filled slots, drawn with seed 0" in " ".join(text.split())
        assert f"{100 * told.share:.1f} ± {100 * told.error:.1f} %" in " ".join(text.split())


def test_a_memory_of_one_slot():
    memory = a_memory(0, slots=1, filled=1)
    found = figures(memory)
    assert found.next.slots.tolist() == [0]
    assert found.accuracy is None
    assert "1 of 1 slot filled (100.0 %)" in summary("m", memory, found)
