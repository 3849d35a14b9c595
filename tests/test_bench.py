"""The command `raremem bench`: what it says it needs, what it refuses, what it fetches, and the report over several runs."""

import datetime
import hashlib
import importlib.util
import json
import os
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raremem.benchmarks import registry, runner
from raremem.benchmarks.data import downloads
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.report.claims import PROVENANCE
from raremem.benchmarks.task import Findings, Setting
from raremem.command import cli


def test_list_says_what_each_task_needs(capsys):
    assert cli.main(["bench", "--list"]) == 0
    shown = capsys.readouterr().out
    for name in registry.TASKS:
        assert name in shown
        assert registry.find(name).needs in shown


def test_what_is_missing_is_one_clear_line(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("RAREMEM_DATA", raising=False)
    assert cli.main(["bench", "omniglot"]) == 1
    assert "Name the folder with --data" in capsys.readouterr().err
    assert cli.main(["bench", "symbols", "--minutes", "0", "--out", str(tmp_path)]) == 1
    assert "expected more than 0" in capsys.readouterr().err
    assert cli.main(["bench", "translation-multi30k", "--data", str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert cli.main(["bench", "translation", "--out", str(tmp_path)]) == 1
    assert "translation needs text" in capsys.readouterr().err
    assert cli.main(["bench", "omniglot", "--stream", str(tmp_path), "--data", str(tmp_path)]) == 1
    assert "only translation takes text of your own" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_what_the_report_needs_is_asked_for_before_the_work(package, capsys, monkeypatch, tmp_path):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else there(name, *rest))
    assert cli.main(["bench", "symbols", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"raremem: the report needs {package}: pip install 'raremem[bench]'\n"
    assert not (tmp_path / "out").exists()


def test_every_name_of_the_registry_is_a_task():
    for name in registry.TASKS:
        task = registry.find(name)
        assert callable(task.run)
        assert task.data is None or task.data in downloads.DATA_SETS


@pytest.fixture
def found(monkeypatch):
    """A task that finds its seed."""

    def run(setting):
        return Findings(
            headline={"accuracy, %": 90.0 + setting.seed},
            figures={"seed": setting.seed},
            tables={"Accuracy": [["", "%"], ["ours & theirs", str(90 + setting.seed)]]},
            plots=list,
        )

    monkeypatch.setattr(runner, "find", lambda name: replace(registry.find(name), run=run))


def test_the_report_takes_seeds_together_and_says_what_was_not_run(found, tmp_path, capsys):
    for seed in (0, 2):
        runner.run_task("symbols", Setting("torch", None, tmp_path, 1.0, seed))
    result = json.loads((tmp_path / "symbols-torch-2.json").read_text())
    assert result["headline"] == {"accuracy, %": 92.0}
    assert {"versions", "device", "threads", "seed", "minutes", "wall_seconds", "figures"} <= set(result)
    assert set(PROVENANCE) <= set(result)
    assert result["date"] == datetime.date.today().isoformat()
    assert f"raremem bench {result['task']} --backend {result['backend']}" in result["command"]
    assert str(tmp_path) not in json.dumps(result)
    page = (tmp_path / "symbols-torch-2.html").read_text()
    assert "ours &amp; theirs" in page
    assert "raremem bench symbols --backend torch --minutes 1 --seed 2" in page
    index = (tmp_path / "index.html").read_text()
    assert "91.0 ± 1.4" in index
    assert index.count("not run") >= 4
    assert "ours &amp; theirs" not in index
    assert "written after" in capsys.readouterr().out


@pytest.fixture
def server(tmp_path):
    """Files at an address of this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{served.server_port}/"
        served.shutdown()


def test_data_is_fetched_checked_and_kept(server, tmp_path, monkeypatch):
    folder, address = server
    (folder / "train.en").write_text("right")
    checksum = "sha256:" + hashlib.sha256(b"right").hexdigest()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(downloads.DATA_SETS, "multi30k", downloads.DataSet("a text", address, {"train.en": checksum}))
    assert (downloads.fetch("multi30k") / "train.en").read_text() == "right"
    (folder / "train.en").write_text("wrong")
    assert (downloads.fetch("multi30k") / "train.en").read_text() == "right"
    (downloads.fetch("multi30k") / "train.en").unlink()
    with pytest.raises(DataError, match="could not be fetched"):
        downloads.fetch("multi30k")
    assert list((tmp_path / "cache" / "raremem" / "multi30k").iterdir()) == []


def test_official_checksums_are_those_of_the_files_at_hand():
    """Where the official files of Multi30k are at hand, their checksums are those that a download is held to."""
    folder = Path(os.environ.get("RAREMEM_DATA", Path(__file__).parents[2] / "shared" / "data")) / "multi30k"
    if not folder.is_dir():
        pytest.skip(f"Multi30k is not at {folder}; set RAREMEM_DATA")
    for name, checksum in downloads.DATA_SETS["multi30k"].files.items():
        assert checksum == "sha256:" + hashlib.sha256((folder / name).read_bytes()).hexdigest()
