"""The command as its users meet it: what is wrong is one line, told before the work; signals end it."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import raremem
from raremem.benchmarks import registry, runner
from raremem.benchmarks.task import Findings
from raremem.benchmarks.training.snapshots import TrainingRun, resume, snapshot
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
@pytest.mark.parametrize("name", ["symbols-plain", "translation-plain", "symbols-memory", "omniglot"])
def test_a_snapshot_that_is_none_is_named_before_the_work(tmp_path, kind, name, capsys, monkeypatch):
    """Even that of the second network, before the first is trained."""
    import safetensors.numpy

    path = tmp_path / f"{name}-torch-0.safetensors"
    content = SNAPSHOTS[kind]
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(2)}, {"run": "5"}) if content is None else content)
    monkeypatch.setattr("raremem.benchmarks.training.learner.framework_module", None)
    monkeypatch.setattr("raremem.benchmarks.tasks.omniglot.load_omniglot", lambda data: None)
    monkeypatch.setattr(
        "raremem.benchmarks.tasks.omniglot.trained", lambda setting, *rest: resume(setting.snapshot("omniglot"), {}, 1.0)
    )
    task = name.partition("-")[0]
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
    snapshot(path, run, content)
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


# The command as a process.

STARTED = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def start(*arguments, code=None, **options):
    command = [sys.executable, "-c", textwrap.dedent(code)] if code else [sys.executable, "-m", "raremem.command.cli"]
    environment = {key: value for key, value in os.environ.items() if key != "RAREMEM_DATA"} | STARTED
    return subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | options.pop("env", {}),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job inherits that it is ignored
        **options,
    )


@pytest.mark.parametrize("command", ["bench --list", "backends", "--help", "conformance --backend numpy --examples 1"])
def test_output_that_nobody_reads_is_one_line(command, tmp_path):
    process = start(*command.split(), cwd=tmp_path)
    process.stdout.close()
    said = process.stderr.read().decode()
    assert process.wait() == (0 if command == "--help" else 1)  # argparse lets it be
    assert said in ("", "raremem: nobody reads the output any more.\n")
    assert (said == "") == (command == "--help")


def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "raremem.command.cli", "bench", "--list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert process.returncode == 1
    assert process.stderr == "raremem: [Errno 28] No space left on device\n"


def test_closed_streams_are_no_matter():
    closed = "import os; os.closerange(0, 3); os.execv({0!r}, [{0!r}, '-m', 'raremem.command.cli', 'bench', '--list'])"
    assert start(code=closed.format(sys.executable)).wait() == 0


LINES = {
    signal.SIGINT: (130, "raremem: interrupted; no file is half-written.\n"),
    signal.SIGTERM: (143, "raremem: terminated; no file is half-written.\n"),
}
AT_AN_IMPORT = """
    import os, sys, time

    class Signal:
        def find_spec(self, name, *rest):
            if name == {module!r}:
                os.kill(os.getpid(), {number})
                time.sleep(20)

    sys.meta_path.insert(0, Signal())
    from raremem.command.cli import main
    sys.exit(main())
"""


@pytest.mark.parametrize("number", LINES)
@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("argparse", "--version"),
        ("numpy", "--help"),
        ("numpy.lib", "bench --list"),
        ("torch._C", "backends"),
        ("jaxlib", "backends"),
        ("hypothesis", "conformance --backend numpy"),
        ("raremem.reference.laws", "conformance --backend numpy"),
    ],
)
def test_a_signal_during_an_import_is_one_line(number, module, command, tmp_path):
    process = start(*command.split(), code=AT_AN_IMPORT.format(module=module, number=int(number)), cwd=tmp_path)
    said = process.communicate()[1].decode()
    assert (process.returncode, said) == LINES[number]


def test_nothing_but_signals_is_imported_before_them():
    code = "import sys; from raremem.command.cli import main; print('numpy' in sys.modules, 'argparse' in sys.modules)"
    assert start(code=code).communicate()[0].split() == [b"False", b"False"]


@pytest.mark.parametrize("number", LINES)
@pytest.mark.parametrize("after", [2.0, 5.0])
def test_the_laws_end_at_once(number, after, tmp_path):
    """Though pytest puts something else in the place of standard error, and catches what is raised."""
    process = start("conformance", "--backend", "numpy", "--examples", "2000", cwd=tmp_path)
    time.sleep(after)
    sent = time.perf_counter()
    process.send_signal(number)
    said = process.communicate()[1].decode()
    assert (process.returncode, said) == LINES[number]
    assert time.perf_counter() - sent < 5


HELD = """
    import sys, threading, time
    from raremem.command.signals import end_on_signal
    end_on_signal()
    from pathlib import Path
    from raremem.command import outputs as files
    whole = files.replace_file
    def slowly(path, content):
        print("writing", flush=True)
        time.sleep(0.5)
        whole(path, content)
        print("written", flush=True)
    files.replace_file = slowly
    files.write_file(Path(sys.argv[1]), b"content")
    time.sleep(20)
"""


def test_a_file_that_is_being_written_is_written(tmp_path):
    process = start(str(tmp_path / "file"), code=HELD)
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[1].decode() == LINES[signal.SIGTERM][1]
    assert process.returncode == 143
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"content"


CHILDREN = """
    import multiprocessing, os, signal, sys, tempfile, time
    from raremem.command.signals import CLEANING, end_on_signal
    end_on_signal()
    CLEANING.append(tempfile.TemporaryDirectory(dir=sys.argv[1]).cleanup)
    child = os.fork()
    if not child:
        time.sleep(20)
        os._exit(0)
    time.sleep(0.2)
    os.kill(child, signal.SIGTERM)
    print(os.waitpid(child, 0)[1], flush=True)
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(20,))
    worker.start()
    print("at work", flush=True)
    time.sleep(20)
"""


def test_a_childs_signal_is_its_own_and_children_and_folders_end_with_the_command(tmp_path):
    process = start(str(tmp_path), code=CHILDREN)
    assert int(process.stdout.readline()) == signal.SIGTERM
    assert process.stdout.readline() == b"at work\n"
    sent = time.perf_counter()
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1].decode() == LINES[signal.SIGINT][1]  # the worker has standard output too, until it ends
    assert time.perf_counter() - sent < 10
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored():
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + textwrap.dedent("""
        import os, time
        from raremem.command.signals import end_on_signal
        end_on_signal()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
    """)
    assert start(code=code).wait() == 0
