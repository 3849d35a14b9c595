"""The demo on a small scale, its data, and its command."""

import io
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import raremem
from raremem.benchmarks.data.characters import draw_characters
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.omniglot import load_omniglot
from raremem.benchmarks.demo.run import Scale, run_demo
from raremem.command import cli

SMALL = Scale(steps=60, drawn_train=60, drawn_test=12, test=3)


def accuracy(found, method):
    later = found.stream.showing > 1
    return (found.answers.by_method[method] == found.stream.classes)[later].mean()


@pytest.fixture(scope="module", params=["torch", "jax"])
def found(request, tmp_path_factory):
    return run_demo(request.param, None, tmp_path_factory.mktemp(request.param), scale=SMALL)


def test_training_learns(found):
    assert np.mean(found.losses[-10:]) < 0.75 * np.mean(found.losses[:10])


def test_memory_beats_the_baselines(found):
    ours = accuracy(found, "raremem")
    assert ours > accuracy(found, "pixel neighbors") + 0.1
    assert ours > accuracy(found, "softmax head") + 0.05
    assert ours > accuracy(found, "FIFO memory")


def test_nobody_knows_what_was_never_shown(found):
    first = found.stream.showing == 1
    assert not (found.answers.by_method["raremem"] == found.stream.classes)[first].any()


def test_report_is_one_page_without_a_network(found):
    page = found.report.read_text()
    assert page.count("<svg") == 1
    assert page.count("data:image/png") > 24
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith(("data:", "#")) for link in links)
    assert [path.name for path in found.report.parent.iterdir()] == ["report.html"]


def test_same_seed_same_answers(tmp_path):
    scale = Scale(steps=5, drawn_train=40, drawn_test=4)
    first, second, other = (run_demo("torch", None, tmp_path, seed, scale) for seed in (1, 1, 2))
    for name, given in first.answers.by_method.items():
        assert np.array_equal(given, second.answers.by_method[name])
    assert not np.array_equal(first.stream.classes, other.stream.classes)


def test_drawn_characters_are_seeded_and_differ():
    one, same, other = draw_characters(1, 3, 2), draw_characters(1, 3, 2), draw_characters(2, 3, 2)
    assert one.train.shape == (3, 20, 28, 28)
    assert one.test.shape == (2, 20, 28, 28)
    assert np.array_equal(one.train, same.train)
    assert not np.array_equal(one.train, other.train)
    assert 0.03 < one.train.mean() < 0.3


def write_omniglot(folder, kind, classes=3):
    generator = np.random.default_rng(0)
    images = generator.random((classes, 20, 105, 105)) < 0.9
    for part in ("images_background", "images_evaluation"):
        if kind == "npz":
            np.savez_compressed(folder / f"{part}.npz", images=images, labels=np.zeros((classes, 20)))
            continue
        from PIL import Image

        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for number, character in enumerate(images):
                for drawer, image in enumerate(character):
                    content = io.BytesIO()
                    Image.fromarray(image).convert("1").save(content, "png")
                    archive.writestr(f"{part}/Alphabet/character{number:02}/{drawer:04}.png", content.getvalue())


def test_omniglot_zip_and_npz_are_the_same(tmp_path):
    loaded = []
    for kind in ("npz", "zip"):
        (tmp_path / kind).mkdir()
        write_omniglot(tmp_path / kind, kind)
        loaded.append(load_omniglot(tmp_path / kind))
    assert loaded[0].train.shape == (3, 20, 28, 28)
    assert np.array_equal(loaded[0].train, loaded[1].train)
    assert np.array_equal(loaded[0].test, loaded[1].test)


def test_bad_data_paths_are_one_clear_line(tmp_path, capsys):
    with pytest.raises(DataError, match="is no folder"):
        load_omniglot(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"neither images_background.npz nor"):
        load_omniglot(tmp_path)
    (tmp_path / "images_background.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="cannot be read"):
        load_omniglot(tmp_path)
    assert cli.main(["demo", "--data", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"raremem {raremem.__version__}"
    assert cli.main(["backends"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("reference", "numpy", "torch", "jax", "choose it for"))


def test_unknown_backend_is_a_clear_line(capsys):
    with pytest.raises(SystemExit):
        cli.main(["demo", "--backend", "tensorflow"])
    assert "invalid choice: 'tensorflow'" in capsys.readouterr().err
    with pytest.raises(raremem.UnknownBackendError, match="expected one of reference, numpy, torch"):
        raremem.get_backend("tensorflow")
    with pytest.raises(raremem.UnknownBackendError, match=r"no backend owns arrays of type builtins\.list"):
        raremem.get_backend([1.0])


def test_a_missing_framework_names_its_extra(tmp_path):
    blocked = "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == 'jax' else f(n, *a)\n"
    code = blocked + "import raremem\nprint(raremem.backends()['jax'].missing)\nraremem.get_backend('jax')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'raremem[jax]'" in result.stdout
    assert "MissingPackageError" in result.stderr


def test_interrupt_leaves_no_file(tmp_path):
    """Ctrl-C in the middle of training: exit status 130, one line, no report."""
    import signal

    process = subprocess.Popen(
        [sys.executable, "-m", "raremem.command.cli", "demo", "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "RAREMEM_DATA"} | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job inherits that it is ignored
    )
    assert "characters" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert error.strip().splitlines()[-1] == "raremem: interrupted; no file is half-written."
    assert not (tmp_path / "out").exists()
