"""The command as its users meet it: what is wrong is one line, told before the work. What it prints and reads is any text."""

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import raremem
from raremem.benchmarks import registry, runner
from raremem.benchmarks.task import Findings
from raremem.benchmarks.training.snapshots import TrainingRun, resume, write_snapshot
from raremem.command import cli
from raremem.command.outputs import check_out

GERMAN = "Ein M\u00e4dchen l\u00e4uft."


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with all that a name can lead to, where no task does any work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAREMEM_DATA", raising=False)
    (tmp_path / "file").write_text("a file\n")
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("demo/report.html", "bench/index.html", "bench2/symbols-torch-0.json"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "latin").write_bytes(b"law[m]  # M\xe4dchen\n")
    (tmp_path / "reasonless").write_text("law[m]\n")
    (tmp_path / "mistaken.py").write_text("backend = 1\nraise_ = {None: 1}\n")
    (tmp_path / "broken_module.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "wrong_syntax.py").write_text("def\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def worked(*arguments):
        raise AssertionError("work was begun")

    monkeypatch.setattr(runner, "find", lambda name: replace(registry.find(name), run=worked))
    monkeypatch.setattr("raremem.benchmarks.demo.run.make_embedder", worked)
    return tmp_path


LONG = "x" * 300
WRONG = [
    ("", "required: COMMAND"),
    ("nosuch", "invalid choice: 'nosuch'"),
    ("bench nosuch", "invalid choice: 'nosuch'"),
    ("bench symbols --nosuch", "unrecognized arguments: --nosuch"),
    ("bench omniglot", "Name the folder with --data"),
    ("bench omniglot-large --data . --backend torch", "omniglot-large runs on jax"),
    *(
        (f"bench symbols --minutes={minutes}", "--minutes")
        for minutes in ("inf", "nan", "-1", "0", "-inf", "1e400", "1e9", "x", "")
    ),
    *((f"bench symbols --seed={seed}", "--seed") for seed in ("-1", 10**20, 2**32, "10**20", "1.5", "x", "")),
    *((f"demo --seed={seed}", "--seed") for seed in ("-1", 10**20, "nan")),
    *((f"demo --out={out}", "--out") for out in ("file", "file/sub", "broken", "broken/sub", LONG, f"new/{LONG}", "")),
    *((f"bench symbols --out={out}", "--out") for out in ("file", "broken", LONG, f"new/{LONG}", "x/" * 3000, "")),
    ("demo --out demo", "report.html"),
    ("bench symbols --out bench", "index.html"),
    ("bench symbols --out bench2", "symbols-torch-0.json"),
    *(
        (f"conformance --backend numpy --report={report}", "--report")
        for report in ("demo", "new/x", "file/x", "broken", LONG, "")
    ),
    *((f"conformance --backend numpy --examples={examples}", "--examples") for examples in (0, -1, 10**20, "x", "")),
    *(
        (f"conformance --backend={name}", f"'{name}'")
        for name in ("nosuch", "nosuch.mod:x", "os:path", "os:nosuch", "os:", ":x", "")
    ),
    *((f"conformance --backend={name}", name) for name in ("mistaken:backend", "mistaken:raise_", "broken_module:x")),
    ("conformance --backend wrong_syntax:x", "SyntaxError"),
    ("conformance", "--backend"),
    ("conformance --backend numpy --expected-failures missing", "missing cannot be read"),
    ("conformance --backend numpy --expected-failures demo", "demo cannot be read"),
    ("conformance --backend numpy --expected-failures latin", "latin cannot be read"),
    ("conformance --backend numpy --expected-failures reasonless", "has no reason"),
    *(
        (f"conformance --backend numpy --device={device}", f"--device '{device}'")
        for device in ("nonsense", "meta", "cuda:99", "")
    ),
    *((f"bench speed --device={device}", f"--device '{device}'") for device in ("nonsense", "meta")),
    ("bench symbols --device cpu", "--device cpu"),
]


@pytest.mark.parametrize(("line", "named"), WRONG, ids=lambda text: text[:60])
def test_what_is_wrong_is_one_line_before_the_work(place, line, named, capsys):
    before = sorted(place.rglob("*"))
    try:
        status = cli.main(line.split(" ") if line else [])
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr().err.strip()
    assert status in (1, 2)
    assert named in said
    assert len(said.splitlines()) == 1
    assert [path for path in sorted(place.rglob("*")) if "__pycache__" not in path.parts] == before


@pytest.mark.parametrize("task", [name for name in registry.TASKS if registry.find(name).data] + ["demo"])
@pytest.mark.parametrize("data", ["nowhere", "file", "broken", ".", "demo"])
def test_data_that_is_not_there_is_one_line(place, task, data, capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(place)
    monkeypatch.setattr("raremem.benchmarks.demo.run.make_embedder", lambda *arguments: None)
    backend = ["--backend", "jax"] if task == "omniglot-large" else []
    assert cli.main([*(["demo"] if task == "demo" else ["bench", task]), "--data", data, *backend]) == 1
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert data in said
    assert not (place / "out").exists()


def test_an_empty_variable_names_no_data(place, capsys, monkeypatch):
    monkeypatch.setenv("RAREMEM_DATA", "")
    assert cli.main(["bench", "omniglot"]) == 1
    assert "Name the folder with --data" in capsys.readouterr().err


def test_a_folder_for_results_is_tried_without_a_trace(tmp_path):
    check_out(tmp_path / "a" / "b", ["index.html"])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(raremem.ConfigError, match="cannot be written to"):
        check_out(Path("/proc/nowhere"))


def test_too_few_characters_are_told_before_training(tmp_path, capsys, monkeypatch):
    images = np.random.default_rng(0).random((3, 20, 105, 105)) < 0.9
    for part in ("images_background", "images_evaluation"):
        np.savez(tmp_path / f"{part}.npz", images=images)
    for command in (["demo"], ["bench", "omniglot"], ["bench", "lifelong"], ["bench", "index-omniglot"]):
        assert cli.main([*command, "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
        assert re.search(r"Omniglot has 3 classes to (train|test) on; expected \d+ at least", capsys.readouterr().err)


def findings_of(text):
    return Findings({text: 1.0}, {}, {text: [["", text], [text, "1"]]}, list, {text: text})


@pytest.fixture
def task(monkeypatch):
    """Every task gives a table of German and of markup at once."""
    found = findings_of(f"{GERMAN} <script>\u2028\x1b[2J")
    monkeypatch.setattr(runner, "find", lambda name: replace(registry.find(name), run=lambda setting: found))


RESULT = {"task": "symbols", "backend": "torch", "seed": 7, "minutes": 1.0, "headline": {"a": 1.0}}
STRANGE = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"1",
    "a result of nothing": b"{}",
    "undecodable": b'{"task": "\xff"}',
    "deep": b"[" * 100_000,
    "of no task": json.dumps({**RESULT, "task": "a"}).encode(),
    "of no backend": json.dumps({**RESULT, "backend": "<script>"}).encode(),
    "under another name": json.dumps({**RESULT, "seed": 8}).encode(),
    "a seed of markup": json.dumps({**RESULT, "seed": "7<script>"}).encode(),
    "a text for minutes": json.dumps({**RESULT, "minutes": "<script>"}).encode(),
    "no number": json.dumps({**RESULT, "headline": {"a": float("nan")}}).encode(),
    "a text for a figure": json.dumps({**RESULT, "headline": {"a": "1"}}).encode(),
    "no figures": json.dumps({**RESULT, "headline": 5}).encode(),
    "tasks in a list": json.dumps({**RESULT, "task": ["symbols"]}).encode(),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strangers_json_is_named_and_left_out(task, tmp_path, kind, capsys):
    (tmp_path / "symbols-torch-7.json").write_bytes(STRANGE[kind])
    assert cli.main(["bench", "symbols", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"{tmp_path / 'symbols-torch-7.json'} is no result of raremem bench" in said
    assert "seed 0" in (tmp_path / "index.html").read_text()
    assert "seed 7" not in (tmp_path / "index.html").read_text()


def test_a_seed_is_a_number_even_where_the_files_name_agrees(task, tmp_path, capsys):
    (tmp_path / "symbols-torch-<b>.json").write_text(json.dumps({**RESULT, "seed": "<b>"}))
    assert cli.main(["bench", "symbols", "--out", str(tmp_path)]) == 0
    assert "symbols-torch-<b>.json is no result" in capsys.readouterr().err
    assert "<b>" not in (tmp_path / "index.html").read_text()


def test_what_a_result_says_is_text_and_not_markup(task, tmp_path):
    name = "<img src=x onerror=alert(1)>\ud800"
    (tmp_path / "symbols-torch-7.json").write_text(json.dumps({**RESULT, "headline": {name: 2.5}}))
    assert cli.main(["bench", "symbols", "--out", str(tmp_path)]) == 0
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "&lt;img src=x onerror=alert(1)&gt;?" in index
    assert '<a href="symbols-torch-7.html">torch, seed 7</a>' in index
    for page in tmp_path.glob("*.html"):
        assert "<img" not in page.read_text(encoding="utf-8")
        assert "<script" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp437"])
def test_german_is_printed_on_every_terminal(task, tmp_path, monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert cli.main(["bench", "symbols", "--out", str(tmp_path)]) == 0
    said = written.getvalue().decode(encoding)
    assert (r"Ein M\xe4dchen l\xe4uft. <script>" if encoding == "ascii" else f"{GERMAN} <script>") in said
    assert "\x1b" not in said


def run_of(asked):
    return TrainingRun({**asked, "minutes": 1.0}, 40, 20, 1.0, [{"step": 20, "minutes": 1.0, "loss": 0.5}])


SNAPSHOTS = {
    "empty": b"",
    "a text": b"not a snapshot",
    "a memory": (Path(__file__).parent / "files" / "memory-schema-2.safetensors").read_bytes(),
    "a long header": (2**63).to_bytes(8, "little") + b"{}",
    "no metadata": b"\x02\0\0\0\0\0\0\0{}",
    "a header of numbers": None,
}


@pytest.mark.parametrize("kind", SNAPSHOTS)
@pytest.mark.parametrize(
    "name", ["symbols-plain", "translation-memory", "translation-multi30k-plain", "symbols-memory", "omniglot"]
)
def test_a_snapshot_that_is_none_is_named_before_the_work(tmp_path, kind, name, capsys, monkeypatch):
    """Even that of the second network, before the first is trained."""
    import safetensors.numpy

    path = tmp_path / f"{name}-torch-0.safetensors"
    content = SNAPSHOTS[kind]
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(2)}, {"run": "5"}) if content is None else content)
    monkeypatch.setattr("raremem.benchmarks.training.learner.framework_module", None)
    monkeypatch.setattr("raremem.benchmarks.tasks.omniglot.load_omniglot", lambda data: None)
    monkeypatch.setattr(
        "raremem.benchmarks.tasks.omniglot.trained", lambda setting, *rest: resume(setting.snapshot_path("omniglot"), {}, 1.0)
    )
    task = name.rpartition("-")[0] or name
    assert cli.main(["bench", task, "--data", str(tmp_path), "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"{path} is not a whole snapshot" in said


def test_a_folder_in_a_snapshots_place_is_named(tmp_path):
    with pytest.raises(raremem.CheckpointError, match="is not a whole snapshot"):
        resume(tmp_path, {}, 1.0)


def test_whatever_changes_in_a_snapshot_is_seen(tmp_path):
    path = tmp_path / "a.safetensors"
    run, content = run_of({"seed": 0}), {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(3)}
    write_snapshot(path, run, content)
    found, arrays = resume(path, {"seed": 0}, 1.0)
    assert found == run
    assert np.array_equal(arrays["weights"], content["weights"])
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 16):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with pytest.raises(raremem.CheckpointError):
                resume(path, {"seed": 0}, 1.0)
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(raremem.CheckpointError):
            resume(path, {"seed": 0}, 1.0)
