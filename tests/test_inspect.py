"""`raremem inspect`: its page, files of every kind, and what goes wrong, each in one line."""

import json
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

import raremem
from raremem.adapters.sklearn import MemoryClassifier
from raremem.adapters.torch import Memory
from raremem.benchmarks.inspection import content, measures
from raremem.command import cli

BACKEND = raremem.get_backend("numpy")


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
def inspect(tmp_path, capsys):
    """Runs the command with some arguments; gives the page and the summary."""

    def ran(*arguments):
        assert cli.main(["inspect", *map(str, arguments), "--out", str(tmp_path / "report 女.html")]) == 0
        return Page((tmp_path / "report 女.html").read_text(encoding="utf-8")), capsys.readouterr().out

    return ran


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


def test_every_figure_of_a_page(streamed, tmp_path, inspect):
    config, state = streamed
    raremem.save(tmp_path / "m.safetensors", config, state)
    page, said = inspect(tmp_path / "m.safetensors")
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
    html = (tmp_path / "report 女.html").read_text(encoding="utf-8")
    assert all(part in html for part in ("prefers-color-scheme: dark", 'name="viewport"'))
    assert not any(part in html for part in ("http", "url("))  # it needs nothing else


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


ROWS = np.eye(4, 6, dtype=np.float32) + np.eye(4, 6, -3, dtype=np.float32)
VALUES = np.array([7, 8, 9, 7])


def written_by_torch(path):
    memory = Memory(raremem.MemoryConfig(slots=5, key_dim=6))
    memory.update(memory(torch.from_numpy(ROWS), torch.from_numpy(VALUES)))
    memory.save(path)


def written_by_jax(path):
    from raremem.adapters import jax as memory

    config = raremem.MemoryConfig(slots=5, key_dim=6)
    state, _ = memory.update(config, memory.init(config), ROWS, VALUES)
    raremem.save(path, config, state)


def written_by_a_classifier(path):
    MemoryClassifier(slots=5).fit(ROWS, VALUES.astype(str)).save(path)


def written_by_a_model(path):
    model = torch.nn.Sequential(torch.nn.Linear(6, 6), Memory(raremem.MemoryConfig(slots=5, key_dim=6)))
    model[1].update(model[1](torch.from_numpy(ROWS), torch.from_numpy(VALUES)))
    safetensors.numpy.save_file({name: part.numpy() for name, part in model.state_dict().items()}, path, {"format": "pt"})


WRITERS = {
    "a memory, schema 4": (written_by_torch, written_by_jax),
    "a MemoryClassifier, schema 3": (written_by_a_classifier,),
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


def a_memory_in(folder, filled=3, one_value=False):
    """A small memory's file, with values 0, 1, 2, ..., or always 0."""
    config = raremem.MemoryConfig(slots=4, key_dim=4, age_noise=0)
    state = BACKEND.init(config)
    if filled:
        state, _ = BACKEND.update(config, state, np.eye(4)[:filled] + 0.1, np.arange(filled) * (not one_value))
    raremem.save(folder / "m.safetensors", config, state)
    return folder / "m.safetensors"


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
        "newer_classifier": classifier.replace(b'schema\\\\\\": 3', b'schema\\\\\\": 4'),
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
BROKEN = ("truncated", "half", "nothing", "text", "pickled", "huge")
WRONG = [
    ("", "required: FILE"),
    ("missing", "missing: there is no such file"),
    ("broken", "broken: there is no such file"),
    (LONG, LONG),
    ("folder", "is a folder without model.safetensors"),
    ("fifo", "it is a device or a pipe"),
    ("/dev/null", "it is a device or a pipe"),
    *((name, f"{name} is not a whole raremem checkpoint") for name in BROKEN),
    ("bitten", "bitten was changed after it was written"),
    ("zipped", "zipped was written by torch.save"),
    ("newer", "newer has schema 5; expected 1 to 4"),
    ("newer_classifier", "its schema is 4, where 1 to 3 are expected"),
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


def test_labels_and_payloads_are_text(tmp_path, inspect):
    name = "<b>M\u00e4dchen 女.safetensors"
    labels = np.array([MARKUP, "other", "other"])
    MemoryClassifier(slots=3).fit(np.eye(3) + 0.1, labels).save(tmp_path / name)
    payload = ["</bdi><script>alert(1)</script>\n\x00", None, {"a": [1, math.nan]}]
    (tmp_path / "p.json").write_text(json.dumps(payload))
    page, said = inspect(tmp_path / name, "--payload", tmp_path / "p.json")
    shown = "<img src=x onerror=alert(1)></td>{{ 7 * 7 }} [2J M\u00e4dchen 女"
    assert page.text.count(shown) == 5
    assert "id 0: </bdi><script>alert(1)</script>" in page.flat
    assert "id 1" in page.flat
    assert 'id 2: {"a": [1, NaN]}' in page.flat
    assert name in page.text
    assert shown[:39] in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("file", "text", "examples"),
    [
        ("p", "first\nsecond\nthird\nfourth\n", ["first", "second", "third"]),
        ("p.json", '["first", null, 3]', ["first", "", "3"]),
    ],
)
def test_examples_stand_beside_slots(file, text, examples, tmp_path, inspect):
    (tmp_path / file).write_text(text)
    page, _ = inspect(a_memory_in(tmp_path), "--payload", tmp_path / file)
    assert [row[-1] for row in page.tables["What would go next"]] == ["example", *examples]
    assert "fourth" not in page.text


@pytest.mark.parametrize(
    ("filled", "says"),
    [(0, "Nothing is stored yet."), (1, "One slot is filled: it has no other to be confused with.")],
)
def test_a_memory_of_none_and_of_one(filled, says, tmp_path, inspect):
    page, said = inspect(a_memory_in(tmp_path, filled=filled))
    assert says in page.flat
    assert ("What would go next" in page.tables) == bool(filled)
    assert says.lower().removesuffix(".") in said


def test_a_memory_of_one_value(tmp_path, inspect):
    page, said = inspect(a_memory_in(tmp_path, one_value=True))
    for text in (page.flat, " ".join(said.split())):
        assert "100.0 % of the slots asked have a nearest slot of their own value" in text
        assert "here is one value: it has no other to be confused with" in text


def test_a_classifier_that_grows_evicts_nothing(tmp_path, inspect):
    MemoryClassifier(unknown=0.5).fit(ROWS, VALUES).save(tmp_path / "c")
    page, said = inspect(tmp_path / "c")
    assert "Nothing: the classifier takes as many examples as come (slots=None)." in page.flat
    assert "What would go next" not in page.tables
    assert "refused as unknown: evidence below " in page.flat
    assert "next to go\nNothing: the classifier" in said
