"""What the command `raremem` does: its options, what goes wrong in one line, and which function does what is asked for."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

import raremem

NUMBERS = {
    "minutes": (0, 1_000_000, "more than 0, and at most 1,000,000"),
    "seed": (-1, 2**32 - 1, "0 to 4,294,967,295"),
    "examples": (0, 1_000_000, "1 to 1,000,000"),
    "count": (0, 1_000_000, "1 to 1,000,000"),
    "jobs": (0, 1_000, "1 to 1,000"),
}
"""For each number that an option takes: it is more than the first, and at most the second; and how that is said."""


def run(arguments: Sequence[str] | None) -> int:
    """Do what these arguments say, or those of the process; see `cli.main`."""
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    try:
        try:
            options = _parser().parse_args(arguments)
            _check_numbers(options)
            return options.run(options) or 0
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        return _failed("nobody reads the output any more.")
    except (raremem.RarememError, OSError) as error:
        return _failed(str(error))
    except MemoryError as error:
        return _failed(f"this machine has not enough memory ({error or 'MemoryError'}).")
    except KeyboardInterrupt:
        return _failed("interrupted; no file is half-written.", 130)


def _failed(message: str, status: int = 1) -> int:
    """Say why, in one line; what can no longer be written to standard output is dropped, or Python would say so at its end."""
    from raremem.command.lines import as_line

    with contextlib.suppress(OSError):
        print(f"raremem: {as_line(message)}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _check_numbers(options: argparse.Namespace) -> None:
    for name, (above, most, expected) in NUMBERS.items():
        number = getattr(options, name, None)
        if number is not None and not above < number <= most:
            raise raremem.ConfigError(f"--{name} {number}: expected {expected}.")


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser`."""
        from raremem.command.lines import as_line

        self.exit(2, f"{self.prog}: {as_line(message)}; see {self.prog} --help\n")


def _path(name: str) -> Path:
    """The file or folder of that name, which "" is not."""
    if not name:
        raise argparse.ArgumentTypeError("expected a name, and there is none")
    return Path(name)


def _parser() -> argparse.ArgumentParser:
    from raremem.benchmarks.runner import TASKS

    parser = _Parser(prog="raremem", description="A life-long memory for neural networks.")
    parser.add_argument("--version", action="version", version=f"raremem {raremem.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    backends = commands.add_parser("backends", help="what is installed, and which adapter to choose for what")
    backends.set_defaults(run=_backends)

    conformance = commands.add_parser("conformance", help="run every law of the specification on a backend, yours or ours")
    conformance.add_argument(
        "--backend", action="append", required=True, metavar="NAME", help="numpy, torch, jax, or package.module:attribute"
    )
    conformance.add_argument("--examples", type=int, default=50, metavar="N", help="cases for each law; default: 50")
    conformance.add_argument("--expected-failures", type=_path, metavar="FILE", help="lines 'law[backend-mode]  # reason'")
    conformance.add_argument("--report", type=_path, metavar="FILE", help="write what came out as JSON")
    conformance.add_argument("--device", metavar="NAME", help="PyTorch's, cuda say; JAX takes its own default")
    conformance.set_defaults(run=_conformance)

    mutants = commands.add_parser(
        "mutants", help="try the laws on small changes of raremem's own code, of which each must break one"
    )
    mutants.add_argument("--seed", type=int, default=0, help="of the sample; default: 0")
    mutants.add_argument("--count", type=int, default=400, metavar="N", help="changes in the sample; default: 400")
    mutants.add_argument("--examples", type=int, default=50, metavar="N", help="cases for each law; default: 50")
    mutants.add_argument("--seconds", type=float, metavar="S", help="of laws for each; default: all that reach it")
    mutants.add_argument("--minutes", type=float, metavar="M", help="begin none after so many; default: try all")
    mutants.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="tried at a time; default: one a core")
    mutants.add_argument(
        "--results",
        type=_path,
        default=Path("out/mutants.jsonl"),
        metavar="FILE",
        help="what comes out, line by line; a run that was stopped goes on from it; default: out/mutants.jsonl",
    )
    mutants.add_argument("--only", type=_path, metavar="FILE", help="instead of a sample, what survived by these results")
    mutants.add_argument("--report", type=_path, metavar="FILE", help="write a page: docs/mutants.md")
    mutants.set_defaults(run=_mutants)

    demo = commands.add_parser("demo", help="train a small network, then let it remember characters seen once")
    demo.add_argument("--backend", choices=("torch", "jax"), default="torch", help="default: torch")
    demo.add_argument(
        "--data",
        type=_path,
        default=os.environ.get("RAREMEM_DATA") or None,
        metavar="PATH",
        help="a folder with Omniglot (its zips or .npz); default: RAREMEM_DATA, or characters drawn here",
    )
    demo.add_argument("--out", type=_path, default=Path("out"), metavar="DIR", help="for report.html; default: out")
    demo.add_argument("--seed", type=int, default=0, help="default: 0")
    demo.set_defaults(run=_demo)

    bench = commands.add_parser("bench", help="run a benchmark task; --list says what each needs")
    bench.add_argument("task", nargs="?", choices=tuple(TASKS))
    bench.add_argument("--list", action="store_true", help="the tasks, and what each needs")
    bench.add_argument("--backend", choices=("torch", "jax", "numpy"), default="torch", help="default: torch")
    bench.add_argument("--minutes", type=float, metavar="N", help="of training; default: what --list says")
    bench.add_argument(
        "--data",
        type=_path,
        default=os.environ.get("RAREMEM_DATA") or None,
        metavar="PATH",
        help="a folder with the data, or the word download; default: RAREMEM_DATA",
    )
    bench.add_argument("--out", type=_path, default=Path("out"), metavar="DIR", help="for results; default: out")
    bench.add_argument("--seed", type=int, default=0, help="default: 0")
    bench.add_argument("--device", metavar="NAME", help="PyTorch's, cuda say, for speed; JAX takes its own default")
    bench.set_defaults(run=_bench)
    return parser


def _bench(options: argparse.Namespace) -> None:
    from raremem.benchmarks.runner import FILES, TASKS, Setting, run_task

    if options.list or options.task is None:
        for name, task in TASKS.items():
            wanted = f"--data with {FILES[task.data]}, or --data download; " if task.data else ""
            print(f"{name:16} {task.title}\n{'':16} needs {wanted}{task.needs}; --minutes {task.minutes:g} by default")
        return
    if options.device is not None and options.task != "speed":
        raise raremem.ConfigError(f"--device {options.device}: of the tasks only speed goes to another device of PyTorch's.")
    minutes = TASKS[options.task].minutes if options.minutes is None else options.minutes
    with _default_device(options.device):
        run_task(options.task, Setting(options.backend, options.data, options.out, minutes, options.seed))


def _default_device(name: str | None) -> AbstractContextManager[object]:
    """In which PyTorch makes its tensors on that device, if one is named: a caller's own default is as it was afterwards."""
    if name is None:
        return nullcontext()
    raremem.get_backend("torch")
    import torch

    try:
        torch.ones(1, device=name).item()
        return torch.device(name)
    except Exception as error:  # PyTorch raises all kinds
        why = str(error).partition("\n")[0]
        raise raremem.DeviceError(
            f"--device {name!r} is none that PyTorch can use here ({why}); name another, cpu say."
        ) from error


def _needs_the_kit() -> None:
    try:
        import hypothesis  # noqa: F401
        import pytest  # noqa: F401
    except ImportError as error:
        raise raremem.MissingPackageError(f"the laws need {error.name}: pip install 'raremem[conformance]'") from error


def _conformance(options: argparse.Namespace) -> int:
    _needs_the_kit()
    import pytest

    from raremem.command.outputs import check_file

    if options.report is not None:
        check_file(options.report, "--report")
    device = _default_device(options.device)
    for name in options.backend:
        raremem.registry.choices(name)
    arguments = ["--pyargs", "raremem.reference.conformance", "-q", "--no-header", "-p", "no:cacheprovider", "-o", "addopts="]
    arguments += [argument for name in options.backend for argument in ("--raremem-backend", name)]
    arguments += ["--raremem-examples", str(options.examples)]
    for option in ("expected_failures", "report"):
        if getattr(options, option) is not None:
            arguments += [f"--raremem-{option.replace('_', '-')}", str(getattr(options, option))]
    with device:
        return min(int(pytest.main(arguments)), 2)


def _mutants(options: argparse.Namespace) -> int:
    """Status 1 if a change that some user could tell broke no law."""
    _needs_the_kit()
    from raremem.command.outputs import check_file
    from raremem.files import replace_file
    from raremem.reference.mutation import campaign
    from raremem.reference.mutation.report import Report

    if options.report is not None:
        check_file(options.report, "--report")
    sample = campaign.Sample(options.seed, options.count, options.only)
    limits = campaign.Limits(options.jobs, options.examples, options.seconds or math.inf, options.minutes or math.inf)
    run = campaign.run(sample, limits, options.results, lambda line: print(line, flush=True))
    report = Report(run)
    if options.report is not None:
        replace_file(options.report, report.page().encode())
    print(report.text())
    return int(report.failed)


def _backends(options: argparse.Namespace) -> None:
    for info in raremem.backends().values():
        state = f"{info.version} on {info.device}" if info.installed else f"missing: {info.missing}"
        print(f"{info.name:10} {state}\n{'':10} choose it for {info.choose_for}")


def _demo(options: argparse.Namespace) -> None:
    from raremem.benchmarks.demo.run import run_demo

    run_demo(options.backend, options.data, options.out, options.seed)
