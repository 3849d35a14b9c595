"""The tasks `index` and `ranks` on sizes that take no time."""

import json
from dataclasses import replace
from functools import partial

import pytest

from raremem.benchmarks import registry, runner
from raremem.benchmarks.data.characters import draw_characters
from raremem.benchmarks.live_index import streams
from raremem.benchmarks.tasks import index as live_search
from raremem.benchmarks.tasks import ranks
from raremem.command import cli
from raremem.search.live import LivePlan


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_every_way_of_searching_is_measured(backend, tmp_path, monkeypatch):
    scale = live_search.IndexScale(sizes=((3000, 16),), checks=3, rebuilt_every=2, plan=LivePlan(1000, 200))
    monkeypatch.setattr(runner, "find", lambda name: replace(registry.find(name), run=partial(live_search.run, scale=scale)))
    assert cli.main(["bench", "index", "--backend", backend, "--minutes", "0.02", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / f"index-{backend}-0.json").read_text())["figures"]["3,000 keys of 16 dimensions"]
    assert next(iter(found)) == "exact"
    assert min(found["exact"]["recall_at_1"]) == 100
    for way, figures in found.items():
        assert figures["steps"] > 0
        assert min(figures["recall_at_1"]) > 70, way
        assert way not in ("exact", "raremem + annoy", "raremem + faiss", "raremem + hnswlib") or min(figures["newest"]) == 100


def test_a_stream_of_characters():
    images = draw_characters(0, train=1, test=5, examples=4).test
    stream = streams.draw(lambda pictures: pictures.reshape(len(pictures), -1), images, slots=50, batches=4, seed=0)
    keys, values = stream.start()
    assert len(keys) == len(values) == 50
    as_they_are = (keys[:, None, None] == images.reshape(1, 5, 4, -1)).all(axis=3).any(axis=2)
    assert as_they_are.any()
    assert (as_they_are.argmax(axis=1) == values)[as_they_are.any(axis=1)].all()
    rows, targets = stream.batch(0)
    assert rows.shape == (streams.BATCH, 28 * 28)
    assert set(targets[1::2]) <= set(range(5))
    assert targets[0::2].tolist() == list(range(5, 5 + streams.BATCH, 2))
    assert (stream.batch(2)[0] == rows).all(), "from the beginning again"
    assert not any((stream.batch(streams.AHEAD + step)[0] == rows).all() for step in range(9)), "what is compared is not sent"


def test_a_step_of_two_ranks_costs_and_sends(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "find", lambda name: replace(registry.find(name), run=partial(ranks.run, numbers=(1, 2))))
    assert cli.main(["bench", "ranks", "--minutes", "0.02", "--out", str(tmp_path)]) == 0
    one, two = json.loads((tmp_path / "ranks-torch-0.json").read_text())["figures"]["costs"]
    assert one["keys"] == 2 * two["keys"]
    assert 0 < two["sent"] <= one["sent"]
    assert one["milliseconds"] > 0
