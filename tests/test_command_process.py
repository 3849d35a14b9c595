"""The command as a process: output that nobody reads, full disks, and signals, each told in one line."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

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
