"""The task `intents` on questions made up here, with an encoder of letters: what it measures, and what it refuses."""

import gzip
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from raremem.benchmarks import registry, runner
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.intents import load_banking, load_clinc
from raremem.benchmarks.tasks.intents import few_shot, run
from raremem.benchmarks.tasks.intents.embeddings import draw, embed_all
from raremem.command import cli

INTENTS = 24


def question(generator, intent):
    """A question of letters that its intent likes."""
    letters = np.random.default_rng(intent).permutation(26)[:8]
    return "".join(chr(97 + letter) for letter in generator.choice(letters, 12)) + ", please"


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    rows = {name: [[question(generator, i), f"intent {i:02}"] for i in range(INTENTS) for _ in range(12)] for name in "tvs"}
    unknown = [[question(generator, 1000 + number), "oos"] for number in range(50)]
    parts = {"train": rows["t"], "val": rows["v"], "test": rows["s"], "oos_test": unknown}
    (tmp_path / "data").mkdir()
    with gzip.open(tmp_path / "data" / "clinc150_data_full.json.gz", "wt") as file:
        json.dump(parts, file)
    for name in ("train", "test"):
        lines = ["text,category", *(f'"{text}",{intent}' for text, intent in parts[name])]
        (tmp_path / "data" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


def letters(texts):
    """Counts of letters, of length 1."""
    counts = np.array([[text.count(chr(97 + letter)) for letter in range(26)] for text in texts], np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_a_run_leaves_its_figures(folder, tmp_path, monkeypatch):
    plan = run.Plan(draws=2, shots=(4,), first=20, pixels=False, encoder=letters)
    monkeypatch.setattr(runner, "find", lambda name: replace(registry.find(name), run=partial(run.run, plan=plan)))
    arguments = ["bench", "intents", "--backend", "numpy", "--data", str(folder), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    figures = json.loads((tmp_path / "out" / "intents-numpy-0.json").read_text())["figures"]
    for case in ("CLINC150, 4 shots", "Banking77, 4 shots"):
        assert len(figures["few shots"][case]) == 7
        for contender in figures["few shots"][case].values():
            assert len(contender["accuracy"]) == 2
            assert min(contender["accuracy"]) > 50
    for arrived in figures["arriving"]:
        assert [number for number, _ in arrived["curve"]] == [20, 24]
        assert arrived["forgotten slots"] == 4 * 10
        assert arrived["answers of forgotten intents"] == 0
        assert arrived["forgotten keys in the file"] == 0
        assert arrived["arrays of other slots that changed"] == 0


@pytest.mark.parametrize("backend", ["numpy"])
def test_rates(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "find", lambda name: replace(registry.find(name), run=partial(run.run_rates, kept=(50, 80))))
    arguments = ["bench", "intents-rates", "--backend", backend, "--minutes", "0.001", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    found = json.loads((tmp_path / f"intents-rates-{backend}-0.json").read_text())["figures"]["rates"]
    assert list(found) == ["50", "80"]
    for some in found.values():
        assert min(some.values()) > 0
        assert {"raremem, questions", "raremem, updates", "scikit-learn, questions", "scikit-learn, updates"} <= set(some)


def test_questions_are_read_and_drawn(folder, tmp_path):
    clinc, banking = load_clinc(folder), load_banking(folder)
    assert clinc.train == banking.train
    assert clinc.unknown.intents == ["oos"] * 50
    assert banking.val.texts == banking.unknown.texts == []
    data = embed_all(folder, tmp_path, letters)["CLINC150"]
    part = draw(data.train, 3, seed=1)
    assert np.bincount(part.labels).tolist() == [3] * INTENTS
    rows = {row.tobytes(): label for row, label in zip(data.train.rows, data.train.labels, strict=True)}
    assert all(rows[row.tobytes()] == label for row, label in zip(part.rows, part.labels, strict=True))
    assert draw(data.train, 3, seed=1).rows.tobytes() == part.rows.tobytes() != draw(data.train, 3, seed=2).rows.tobytes()


def test_what_is_no_data_is_said_in_a_line(folder, tmp_path):
    with pytest.raises(DataError, match=r"has no data_full\.json or clinc150_data_full\.json\.gz"):
        load_clinc(tmp_path / "out")
    (folder / "test.csv").write_text("text,intent\na,b\n")
    with pytest.raises(DataError, match="expected the columns text and category"):
        load_banking(folder)
    (folder / "data_full.json").write_text("[1]")
    with pytest.raises(DataError, match=r"no data_full.json of CLINC150"):
        load_clinc(folder)


def test_auroc():
    assert few_shot.auroc(np.array([2.0, 3.0]), np.array([1.0, 0.0])) == 1
    assert few_shot.auroc(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.5
