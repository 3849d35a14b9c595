"""What `raremem inspect` reads: a model's files, as PyTorch and Hugging Face's libraries write them, and older files."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

import raremem
from raremem.adapters.sklearn import MemoryClassifier
from raremem.adapters.torch import Memory
from raremem.benchmarks.inspection import content
from raremem.benchmarks.inspection.run import run_inspection
from raremem.benchmarks.training.snapshots import TrainingRun, write_snapshot
from raremem.command import cli

FILES = Path(__file__).with_name("files")


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_file_of_an_old_schema(schema, capsys):
    assert cli.main(["inspect", str(FILES / f"memory-schema-{schema}.safetensors")]) == 0
    assert f"a memory, schema {schema}\n2 of 4 slots filled (50.0 %)" in capsys.readouterr().out


def model_of(**names):
    """A model's entries, with a memory under each name that holds that value."""
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


def test_a_folder_by_a_dot_has_its_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "checkpoint-3").mkdir()
    safetensors.numpy.save_file(model_of(memory=5), tmp_path / "checkpoint-3" / "model.safetensors")
    monkeypatch.chdir(tmp_path / "checkpoint-3")
    assert cli.main(["inspect", "."]) == 0
    assert capsys.readouterr().out.startswith("checkpoint-3: a Memory in a model, memory")


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
    entries = {f"model/{name}": array for name, array in model_of(memory=3).items()}
    write_snapshot(tmp_path / "a.safetensors", TrainingRun({}, 1), entries)
    assert values_in(tmp_path / "a.safetensors") == [3, -1]


def test_examples_of_a_classifier_go_by_their_ids(tmp_path):
    """The fourth example is in the slot of the first, which was forgotten."""
    classifier = MemoryClassifier(slots=3).fit(np.eye(3) + 0.1, ["a", "b", "c"])
    classifier.forget(ids=0)
    classifier.partial_fit(np.eye(1, 3) + 0.2, ["d"]).save(tmp_path / "c")
    (tmp_path / "p").write_text("one\ntwo\nthree\nfour\n")
    memory = content.with_payload(content.read(tmp_path / "c"), tmp_path / "p")
    found = {memory.label(int(memory.portable["values"][slot])): memory.example(slot) for slot in range(3)}
    assert found == {"d": "id 3: four", "b": "id 1: two", "c": "id 2: three"}
