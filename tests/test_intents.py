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


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """Runs a task as the command does, and gives its figures."""

    def of(task, work, *arguments):
        monkeypatch.setattr(runner, "find", lambda name: replace(registry.find(name), run=work))
        assert cli.main(["bench", task, "--backend", "numpy", "--out", str(tmp_path / "out"), *arguments]) == 0
        return json.loads((tmp_path / "out" / f"{task}-numpy-0.json").read_text())["figures"]

    return of


PLAN = run.Plan(draws=2, shots=(4,), first=20, encoder=letters)


def test_few_shots(folder, figures):
    found = figures("intents", partial(run.run, plan=PLAN), "--data", str(folder))["few shots"]
    assert list(found) == ["CLINC150, 4 shots", "Banking77, 4 shots"]
    for contenders in found.values():
        assert len(contenders) == 7
        for contender in contenders.values():
            assert len(contender["accuracy"]) == 2
            assert min(contender["accuracy"]) > 50


def test_classes_that_arrive(folder, figures):
    for arrived in figures("intents-arriving", partial(run.run_arriving, plan=PLAN), "--data", str(folder))["arriving"]:
        assert [number for number, _ in arrived["curve"]] == [20, 24]
        assert arrived["after the last"] > 50
        assert arrived["forgotten slots"] == 4 * 10
        assert arrived["answers of forgotten intents"] == 0
        assert arrived["forgotten keys in the file"] == 0
        assert arrived["arrays of other slots that changed"] == 0


def test_pixels(figures):
    found = figures("intents-pixels", partial(run.run_pixels, draws=2, every=10))
    for of_set in found["pixels"].values():
        for split in of_set:
            assert split["other answers"] == 0
            assert split["every row kept"] == split["KNeighborsClassifier"] > 50
    assert found["pixels"].keys() == found["learned map"].keys() >= {"digits"}


def test_rates(figures):
    found = figures("intents-rates", partial(run.run_rates, kept=(50, 80)), "--minutes", "0.001")["rates"]
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
