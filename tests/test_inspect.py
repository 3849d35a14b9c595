"""`raremem inspect`: every figure against a plain computation, files of every kind, and what goes wrong, each in one line."""

import json
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import raremem
from raremem.benchmarks.inspection import confusion, content, measures, words
from raremem.benchmarks.inspection.figures import accuracy, figures
from raremem.benchmarks.inspection.page import as_html
from raremem.benchmarks.inspection.run import run_inspection
from raremem.benchmarks.inspection.text import summary
from raremem.command import cli

BACKEND = raremem.get_backend("numpy")
FILES = Path(__file__).with_name("files")
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


def as_content(config, portable, **known):
    state = BACKEND.from_numpy(config, portable)
    return content.Content("a memory", config, state, BACKEND.to_numpy(state), **known)


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
    before, confusion.FEW = confusion.FEW, few
    try:
        found = confusion.nearest(memory)
    finally:
        confusion.FEW = before
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


class Page(HTMLParser):
    """The tables of a page by the heading before each, and its text. It knows no other tags than it should."""

    KNOWN = frozenset("html meta title style h1 h2 h3 p div b span ul li table tr th td bdi br".split())  # noqa: SIM905

    def __init__(self, html):
        super().__init__()
        self.tables, self.rows, self.heading, self.text, self.kind = {}, [], "", "", ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        assert tag in self.KNOWN, tag
        assert not {name for name, _ in attributes} - {"lang", "charset", "name", "content", "class", "style"}
        self.kind = tag
        if tag == "table":
            self.tables[self.heading] = self.rows = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        elif tag == "div" and ("style" in dict(attributes)):
            self.rows[-1][-1] = dict(attributes)["style"]

    def handle_endtag(self, tag):
        self.kind, self.rows = "", [] if tag == "table" else self.rows

    def handle_data(self, data):
        self.text += data
        if self.kind in ("h2", "h3"):
            self.heading = data
        elif self.rows and self.kind in ("th", "td", "bdi") and data.strip():
            self.rows[-1][-1] += data

    @property
    def flat(self):
        return " ".join(self.text.split())


def as_texts(rows):
    return [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]


def bars(rows, longest):
    return [[name, f"width:{100 * count / longest:.2f}%", f"{count:,}"] for name, count in rows]


@pytest.fixture
def streamed():
    """A memory that has lived, with 40 values of unlike frequency and with empty slots."""
    generator = np.random.default_rng(0)
    config = raremem.MemoryConfig(500, 16, evict="least_hit")
    state, centers = BACKEND.init(config), generator.normal(size=(40, 16))
    share = 1 / np.arange(1, 41)
    for _ in range(100):
        classes = generator.choice(40, 8, p=share / share.sum())
        rows = centers[classes] + 1.1 * generator.normal(size=(8, 16))
        state, _ = BACKEND.update(config, state, rows.astype(np.float32), classes)
    return config, state


def test_every_figure_of_a_page(streamed, tmp_path, capsys):
    config, state = streamed
    raremem.save(tmp_path / "m.safetensors", config, state)
    assert cli.main(["inspect", str(tmp_path / "m.safetensors"), "--out", str(tmp_path / "m.html")]) == 0
    said = capsys.readouterr().out
    page = Page((tmp_path / "m.html").read_text(encoding="utf-8"))
    held = BACKEND.to_numpy(state)
    there = np.flatnonzero(held["filled"]).tolist()
    values, ages, hits = (held[name].tolist() for name in ("values", "ages", "hits"))
    counts = sorted(Counter(values[slot] for slot in there).items(), key=lambda each: (-each[1], each[0]))
    assert page.tables["Configuration"][1:] == [[name, str(value)] for name, value in asdict(config).items()]
    assert page.tables["The most frequent"][1:] == bars([(str(v), n) for v, n in counts[:10]], counts[0][1])
    assert page.tables["The least frequent"][1:] == bars([(str(v), n) for v, n in counts[-10:]], counts[0][1])
    ranges = {"0": (0, 0), "1": (1, 1)} | {f"{2**p} to {2 ** (p + 1) - 1}": (2**p, 2 ** (p + 1) - 1) for p in range(1, 7)}
    for title, numbers in (("Ages", ages), ("Hits", hits)):
        rows = [(name, sum(low <= numbers[slot] <= high for slot in there)) for name, (low, high) in ranges.items()]
        rows = rows[: 1 + max(place for place, (_, count) in enumerate(rows) if count)]
        assert page.tables[title][1:] == bars(rows, max(count for _, count in rows))
    most = sorted(there, key=lambda slot: (-hits[slot], slot))[:10]
    expected = as_texts([slot, str(values[slot]), hits[slot], ages[slot]] for slot in most)
    assert page.tables["The slots that were hit most"][1:] == expected
    to_go = measures.next_to_go(content.read(tmp_path / "m.safetensors"), 10)
    expected = [[slot, str(values[slot]), hits[slot], ages[slot], f"{noise:+}"] for slot, noise in zip(*map(list, to_go))]  # noqa: B905
    assert page.tables["What would go next"][1:] == as_texts([[int(row[0]), *row[1:]] for row in expected])
    check_confusion(page, held, there)
    assert f"{len(there)} of 500 slots filled" in said
    for row in (page.tables["Values that are near"][1], page.tables["What would go next"][1]):
        assert row in [line.split() for line in said.splitlines()]
    assert f"First {500 - len(there)} empty slots are taken, then the slots hit least" in page.flat
    assert "a memory, schema 4" in page.flat
    assert "100step: updates that wrote something" in page.flat


def check_confusion(page, held, there):
    """The pairs and the accuracy of a page, worked out with all similarities in f64."""
    values, keys = held["values"], held["keys"].astype(np.float64)
    scores = keys[there] @ keys[there].T - 9 * np.eye(len(there))
    own = values[there]
    others = np.where(own[:, None] == own, -9, scores)
    nearest, other = own[scores.argmax(1)], own[others.argmax(1)]
    near, confused, best = Counter(), Counter(), {}
    for mine, of_all, of_others, similarity in zip(own.tolist(), nearest, other.tolist(), others.max(1), strict=True):
        pair = tuple(sorted((mine, of_others)))
        near[pair] += 1
        confused[pair] += int(of_all != mine)
        best[pair] = max(best.get(pair, -1), similarity)
    order = sorted(near, key=lambda pair: (-confused[pair], -near[pair], -best[pair]))
    rows = [[str(a), str(b), f"{confused[a, b]}", f"{near[a, b]}", f"{best[a, b]:.3f}"] for a, b in order[:20]]
    assert page.tables["Values that are near"][1:] == rows
    assert f"{len(order) - 20:,} more pairs are not shown" in page.flat
    assert f"{100 * (nearest == own).mean():.1f} % of the slots asked have a nearest slot of their own value" in page.flat
    repeated = np.array([(own == value).sum() > 1 for value in own])
    assert f"{100 * (nearest == own)[repeated].mean():.1f} % of those whose value has another slot" in page.flat
    assert f"{(~repeated).sum()} cannot: their value has one slot only" in page.flat
    assert f"{others.max():.4f}" in page.flat


def test_a_page_needs_nothing_else(streamed):
    config, state = streamed
    memory = as_content(config, BACKEND.to_numpy(state))
    html = as_html("m", memory, figures(memory))
    assert "http" not in html
    assert "url(" not in html
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html
    Page(html)


ROWS = np.eye(4, 6, dtype=np.float32) + np.eye(4, 6, -3, dtype=np.float32)
VALUES = np.array([7, 8, 9, 7])


def written_by_torch(path):
    import torch

    from raremem.adapters.torch import Memory

    memory = Memory(raremem.MemoryConfig(slots=5, key_dim=6))
    memory.update(memory(torch.from_numpy(ROWS), torch.from_numpy(VALUES)))
    memory.save(path)


def written_by_jax(path):
    from raremem.adapters import jax as memory

    config = raremem.MemoryConfig(slots=5, key_dim=6)
    state, _ = memory.update(config, memory.init(config), ROWS, VALUES)
    raremem.save(path, config, state)


def written_by_a_classifier(path):
    from raremem.adapters.sklearn import MemoryClassifier

    MemoryClassifier(slots=5).fit(ROWS, VALUES.astype(str)).save(path)


def written_by_a_model(path):
    import torch

    from raremem.adapters.torch import Memory

    model = torch.nn.Sequential(torch.nn.Linear(6, 6), Memory(raremem.MemoryConfig(slots=5, key_dim=6)))
    model[1].update(model[1](torch.from_numpy(ROWS), torch.from_numpy(VALUES)))
    safetensors.numpy.save_file({name: part.numpy() for name, part in model.state_dict().items()}, path, {"format": "pt"})


WRITERS = {
    "a memory, schema 4": (written_by_torch, written_by_jax),
    "a MemoryClassifier, schema 2": (written_by_a_classifier,),
    "a Memory in a model, 1": (written_by_a_model,),
}
COMMAND = """
import sys
from raremem.command.cli import main
status = main(["inspect", *sys.argv[1:]])
print([name for name in ("torch", "jax", "matplotlib", "sklearn") if name in sys.modules])
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("kind", "writer"), [(kind, writer) for kind, some in WRITERS.items() for writer in some], ids=lambda each: str(each)[:30]
)
def test_as_a_user_would(kind, writer, tmp_path):
    writer(tmp_path / "a.safetensors")
    ran = subprocess.run(
        [sys.executable, "-c", COMMAND, "a.safetensors", "--out", "report.html"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert f"a.safetensors: {kind}" in ran.stdout
    assert "4 of 5 slots filled (80.0 %)" in ran.stdout
    assert ran.stdout.splitlines()[-1] == ("['sklearn']" if "Classifier" in kind else "[]")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.tables["All values"][1:] == bars([("7", 2), ("8", 1), ("9", 1)], 2)
    assert "50.0 % of the slots asked have a nearest slot of their own value" in page.flat
    assert "100.0 % of those whose value has another slot. 2 cannot" in page.flat
    assert "First 1 empty slot is taken" in page.flat
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "report.html"]


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_file_of_an_old_schema(schema, capsys):
    assert cli.main(["inspect", str(FILES / f"memory-schema-{schema}.safetensors")]) == 0
    assert f"a memory, schema {schema}\n2 of 4 slots filled (50.0 %)" in capsys.readouterr().out


def a_memory_in(folder, name="m.safetensors", filled=3):
    """A small memory's file, with values 0, 1, 2, ..."""
    config = raremem.MemoryConfig(slots=4, key_dim=4, age_noise=0)
    state = BACKEND.init(config)
    if filled:
        state, _ = BACKEND.update(config, state, np.eye(4)[:filled] + 0.1, np.arange(filled))
    raremem.save(folder / name, config, state)
    return folder / name


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with files of all kinds."""
    monkeypatch.chdir(tmp_path)
    whole = a_memory_in(tmp_path).read_bytes()
    written_by_a_classifier(tmp_path / "c.safetensors")
    classifier = (tmp_path / "c.safetensors").read_bytes()
    for name, content_ in {
        "truncated": whole[:-1],
        "half": whole[: len(whole) // 2],
        "bitten": whole[:-9] + b"\1" + whole[-8:],
        "nothing": b"",
        "text": b"not a memory\n",
        "pickled": b"\x80\x04\x95.",
        "zipped": b"PK\x03\x04 and so on",
        "huge": (2**63).to_bytes(8, "little") + b"{}",
        "newer": whole.replace(b'schema\\": 4', b'schema\\": 5'),
        "newer_classifier": classifier.replace(b'schema\\\\\\": 2', b'schema\\\\\\": 3'),
        "bitten_classifier": classifier[:-9] + b"\1" + classifier[-8:],
        "lines": b"one\ntwo\n",
        "many_lines": b"one\n" * 9,
        "latin": b"M\xe4dchen\n" * 9,
        "two.json": b'["a", "b"]',
        "dict.json": b'{"a": 1}',
        "wrong.json": b"[1,",
    }.items():
        assert content_ not in (whole, classifier), name
        (tmp_path / name).write_bytes(content_)
    safetensors.numpy.save_file({"weight": np.zeros(3)}, tmp_path / "model", {"format": "pt"})
    for folder in ("folder", "report.html", "hf"):
        (tmp_path / folder).mkdir()
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


LONG = "x" * 300
WRONG = [
    ("", "required: FILE"),
    ("missing", "missing: there is no such file"),
    ("broken", "broken: there is no such file"),
    (LONG, LONG),
    ("folder", "is a folder without model.safetensors"),
    ("fifo", "it is a device or a pipe"),
    ("/dev/null", "it is a device or a pipe"),
    *(
        (name, f"{name} is not a whole raremem checkpoint")
        for name in ("truncated", "half", "nothing", "text", "pickled", "huge")
    ),
    ("bitten", "bitten was changed after it was written"),
    ("zipped", "zipped was written by torch.save"),
    ("newer", "newer has schema 5; expected 1 to 4"),
    ("newer_classifier", "its schema is 3, where 1 to 2 are expected"),
    ("bitten_classifier", "checksum does not match"),
    ("model", "is a safetensors file without a memory in it (of 1 arrays)"),
    ("m.safetensors --memory a", "--memory a: m.safetensors is no model's file"),
    ("m.safetensors --out report.html", "--out report.html cannot be written"),
    ("m.safetensors --out new/report", "there is no folder new"),
    ("m.safetensors --out text/report", "--out"),
    (f"m.safetensors --out {LONG}", "--out"),
    ("m.safetensors --out=", "--out"),
    ("m.safetensors --out /proc/self/comm", "--out /proc/"),
    ("m.safetensors --out m.safetensors", "is m.safetensors, which is to be read"),
    ("m.safetensors --payload many_lines --out many_lines", "is many_lines, which is to be read"),
    ("m.safetensors --payload missing", "missing cannot be read"),
    ("m.safetensors --payload lines", "lines has 2 entries; expected 3 at least, one for each slot"),
    ("c.safetensors --payload lines", "lines has 2 entries; expected 4 at least, one for each example learned"),
    ("m.safetensors --payload two.json", "two.json has 2 entries; expected 3"),
    ("m.safetensors --payload latin", "latin cannot be read"),
    ("m.safetensors --payload dict.json", "it holds a dict"),
    ("m.safetensors --payload wrong.json", "wrong.json cannot be read"),
    ("m.safetensors --payload folder", "folder cannot be read"),
]


@pytest.mark.parametrize(("line", "named"), WRONG, ids=lambda text: text[:60])
def test_what_is_wrong_is_one_line(place, line, named, capsys):
    before = {path: path.lstat().st_mtime_ns for path in place.rglob("*")}
    arguments = ["inspect", *filter(None, line.split(" "))]
    try:
        status = cli.main(arguments if "--out" in line else [*arguments, "--out", "page.html"])
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr()
    assert status in (1, 2)
    assert named in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""
    assert {path: path.lstat().st_mtime_ns for path in place.rglob("*")} == before


@pytest.mark.parametrize(
    ("package", "file", "extra"), [("jinja2", "m.safetensors", "bench"), ("sklearn", "c.safetensors", "sklearn")]
)
def test_a_missing_package_names_its_extra(place, package, file, extra):
    code = "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == {!r} else f(n, *a)\n"
    ran = subprocess.run(
        [sys.executable, "-c", code.format(package) + COMMAND, file, "--out", "page.html"], capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1
    assert f"pip install 'raremem[{extra}]'" in ran.stderr
    assert not Path("page.html").exists()


def test_without_out_only_a_summary_is_printed_and_needs_no_template(place):
    code = "import sys; sys.modules['jinja2'] = sys.modules['matplotlib'] = None\n"
    before = sorted(place.rglob("*"))
    ran = subprocess.run([sys.executable, "-c", code + COMMAND, "m.safetensors"], capture_output=True, text=True, check=True)
    assert "3 of 4 slots filled (75.0 %), keys of 4 numbers, step 1" in ran.stdout
    assert sorted(place.rglob("*")) == before


MARKUP = "<img src=x onerror=alert(1)></td>{{ 7 * 7 }}\u202e\x1b[2J\ud800 M\u00e4dchen 女"


def test_labels_and_payloads_are_text(tmp_path, capsys):
    from raremem.adapters.sklearn import MemoryClassifier

    name = "<b>M\u00e4dchen 女.safetensors"
    labels = np.array([MARKUP, "other", "other"])
    MemoryClassifier(slots=3).fit(np.eye(3) + 0.1, labels).save(tmp_path / name)
    payload = ["</bdi><script>alert(1)</script>\n\x00", None, {"a": [1, math.nan]}]
    (tmp_path / "p.json").write_text(json.dumps(payload))
    given = [str(tmp_path / name), "--payload", str(tmp_path / "p.json"), "--out", str(tmp_path / "report 女.html")]
    assert cli.main(["inspect", *given]) == 0
    page = Page((tmp_path / "report 女.html").read_text(encoding="utf-8"))
    shown = "<img src=x onerror=alert(1)></td>{{ 7 * 7 }} [2J M\u00e4dchen 女"
    assert page.text.count(shown) == 5
    assert "id 0: </bdi><script>alert(1)</script>" in page.flat
    assert "id 1" in page.flat
    assert 'id 2: {"a": [1, NaN]}' in page.flat
    assert name in page.text
    said = capsys.readouterr().out
    assert shown[:39] in said
    assert "\x1b" not in said


def test_examples_stand_beside_slots(place, capsys):
    (place / "p").write_text("first\nsecond\nthird\nfourth\n")
    assert cli.main(["inspect", "m.safetensors", "--payload", "p", "--out", "a.html"]) == 0
    page = Page(Path("a.html").read_text())
    assert [row[-1] for row in page.tables["What would go next"]] == ["example", "first", "second", "third"]
    assert "fourth" not in page.text
    (place / "p.json").write_text('["first", null, 3]')
    assert cli.main(["inspect", "m.safetensors", "--payload", "p.json", "--out", "a.html"]) == 0
    page = Page(Path("a.html").read_text())
    assert [row[-1] for row in page.tables["What would go next"]] == ["example", "first", "", "3"]


def test_examples_of_a_classifier_go_by_their_ids(tmp_path):
    """The fourth example is in the slot of the first, which was forgotten."""
    from raremem.adapters.sklearn import MemoryClassifier

    classifier = MemoryClassifier(slots=3).fit(np.eye(3) + 0.1, ["a", "b", "c"])
    classifier.forget(ids=0)
    classifier.partial_fit(np.eye(1, 3) + 0.2, ["d"]).save(tmp_path / "c")
    (tmp_path / "p").write_text("one\ntwo\nthree\nfour\n")
    memory = content.with_payload(content.read(tmp_path / "c"), tmp_path / "p")
    found = {memory.label(int(memory.portable["values"][slot])): memory.example(slot) for slot in range(3)}
    assert found == {"d": "id 3: four", "b": "id 1: two", "c": "id 2: three"}


@pytest.mark.parametrize(
    ("filled", "says"),
    [(0, "Nothing is stored yet."), (1, "One slot is filled: it has no other to be confused with.")],
)
def test_a_memory_of_none_and_of_one(tmp_path, filled, says, capsys):
    assert cli.main(["inspect", str(a_memory_in(tmp_path, filled=filled)), "--out", str(tmp_path / "a.html")]) == 0
    page = Page((tmp_path / "a.html").read_text())
    assert says in page.flat
    assert ("What would go next" in page.tables) == bool(filled)
    assert says.lower().removesuffix(".") in capsys.readouterr().out


def test_a_memory_of_one_slot():
    memory = a_memory(0, slots=1, filled=1)
    found = figures(memory)
    assert found.next.slots.tolist() == [0]
    assert found.accuracy is None
    assert "1 of 1 slot filled (100.0 %)" in summary("m", memory, found)


def test_a_folder_by_a_dot_has_its_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "checkpoint-3").mkdir()
    safetensors.numpy.save_file(model_of(memory=5), tmp_path / "checkpoint-3" / "model.safetensors")
    monkeypatch.chdir(tmp_path / "checkpoint-3")
    assert cli.main(["inspect", "."]) == 0
    assert capsys.readouterr().out.startswith("checkpoint-3: a Memory in a model, memory")


def test_a_memory_of_one_value(tmp_path, capsys):
    memory = a_memory(0, values=1)
    raremem.save(tmp_path / "m", memory.config, memory.state)
    assert cli.main(["inspect", str(tmp_path / "m"), "--out", str(tmp_path / "a.html")]) == 0
    page = Page((tmp_path / "a.html").read_text())
    for text in (page.flat, " ".join(capsys.readouterr().out.split())):
        assert "100.0 % of the slots asked have a nearest slot of their own value" in text
        assert "here is one value: it has no other to be confused with" in text


def test_a_classifier_that_grows_evicts_nothing(tmp_path, capsys):
    from raremem.adapters.sklearn import MemoryClassifier

    MemoryClassifier(unknown=0.5).fit(ROWS, VALUES).save(tmp_path / "c")
    assert cli.main(["inspect", str(tmp_path / "c"), "--out", str(tmp_path / "a.html")]) == 0
    page = Page((tmp_path / "a.html").read_text())
    assert "Nothing: the classifier takes as many examples as come (slots=None)." in page.flat
    assert "What would go next" not in page.tables
    assert "refused as unknown: evidence below " in page.flat
    assert "next to go\nNothing: the classifier" in capsys.readouterr().out


def model_of(**names):
    """A model's entries, with a memory under each name that holds that value."""
    import torch

    from raremem.adapters.torch import Memory

    model = torch.nn.Module()
    for name, value in names.items():
        memory = Memory(raremem.MemoryConfig(slots=2, key_dim=3))
        memory.update(memory(torch.eye(1, 3), torch.tensor([value])))
        model.add_module(name, memory)
    model.add_module("layer", torch.nn.Linear(2, 2))
    return {name: part.numpy() for name, part in model.state_dict().items()}


def values_in(path, name=None):
    return content.read(path, name).portable["values"].tolist()


def test_a_models_folder(tmp_path):
    entries = model_of(memory=5)
    safetensors.numpy.save_file(entries, tmp_path / "model.safetensors", {"format": "pt"})
    assert values_in(tmp_path) == values_in(tmp_path / "model.safetensors") == [5, -1]
    with pytest.raises(raremem.ConfigError, match=r"--memory other: .* has none of that name; expected memory"):
        content.read(tmp_path, "other")


def in_shards(folder, entries):
    """As Hugging Face's libraries write a large model: here each entry in a file of its own."""
    files = {name: f"model-{place:05}-of-{len(entries):05}.safetensors" for place, name in enumerate(entries)}
    for name, file in files.items():
        safetensors.numpy.save_file({name: entries[name]}, folder / file, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return index


def test_a_model_in_many_files_with_two_memories(tmp_path):
    index = in_shards(tmp_path, model_of(first=3, second=4))
    assert values_in(tmp_path, "first") == [3, -1]
    assert values_in(index, "second") == [4, -1]
    with pytest.raises(raremem.ConfigError, match=r"has 2 memories: first, second\. Name one with --memory"):
        content.read(tmp_path)
    run_inspection(tmp_path, tmp_path / "a.html", name="second")
    assert "a Memory in a model, second" in (tmp_path / "a.html").read_text()


def test_an_index_that_leads_elsewhere_or_is_none(tmp_path):
    index = in_shards(tmp_path, model_of(memory=3))
    named = json.loads(index.read_text())
    for wrong in ("../x.safetensors", "/etc/passwd", "a/b"):
        index.write_text(json.dumps({"weight_map": {**named["weight_map"], "memory.keys": wrong}}))
        with pytest.raises(raremem.CheckpointError, match="the name of a file in the same folder is expected"):
            content.read(tmp_path)
    for wrong in ("", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
        index.write_text(wrong)
        with pytest.raises(raremem.CheckpointError):
            content.read(tmp_path)
    index.write_text(json.dumps(named))
    (tmp_path / named["weight_map"]["memory.keys"]).unlink()
    with pytest.raises(OSError, match="No such file"):
        content.read(tmp_path)


def test_a_memory_in_a_model_that_is_not_whole(tmp_path):
    path, entries = tmp_path / "model.safetensors", model_of(memory=3)
    extra = json.loads(entries["memory._extra_state"].tobytes())
    part = np.frombuffer(json.dumps({**extra, "rank": 1, "ranks": 2}).encode(), np.uint8)
    newer = np.frombuffer(json.dumps({"config": {**extra["config"], "new": 1}}).encode(), np.uint8)
    for changed, says in (
        ({"_extra_state": part}, "the part of rank 1 of a memory over 2 ranks"),
        ({"_extra_state": newer}, "no whole memory"),
        ({"_extra_state": np.zeros(3, np.uint8)}, "no whole memory"),
        ({"keys": entries["memory.keys"] * 2}, "norm 2"),
        ({"keys": entries["memory.keys"][:, :2]}, "no whole memory"),
        ({"values": entries["memory.values"][:1]}, "its values are"),
    ):
        whole = {**entries, **{f"memory.{name}": array for name, array in changed.items()}}
        safetensors.numpy.save_file(whole, path, {"format": "pt"})
        with pytest.raises(raremem.CheckpointError, match=says):
            content.read(path)


def test_the_memory_of_a_snapshot(tmp_path):
    """What a run of `raremem bench` in PyTorch leaves."""
    from raremem.benchmarks.training.snapshots import TrainingRun, write_snapshot

    entries = {f"model/{name}": array for name, array in model_of(memory=3).items()}
    write_snapshot(tmp_path / "a.safetensors", TrainingRun({}, 1), entries)
    assert values_in(tmp_path / "a.safetensors") == [3, -1]
