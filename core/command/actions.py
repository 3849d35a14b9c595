"""One function for each command. Each imports what it needs when it is called."""

from __future__ import annotations

import argparse
import importlib.util
import math
from contextlib import AbstractContextManager, nullcontext

import raremem
from raremem.command.outputs import check_file
from raremem.files import replace_file


def bench(options: argparse.Namespace) -> None:
    """Run a benchmark task, or list all."""
    from raremem.benchmarks.registry import find
    from raremem.benchmarks.runner import run_task
    from raremem.benchmarks.task import Setting

    if options.list or options.task is None:
        return _list_tasks()
    if options.device is not None and options.task != "speed":
        raise raremem.ConfigError(f"--device {options.device}: of the tasks, only speed takes a device.")
    for name in ("stream", "train"):
        if getattr(options, name) is not None and options.task != "translation":
            raise raremem.ConfigError(f"--{name} {getattr(options, name)}: only translation takes text of your own.")
    minutes = find(options.task).minutes if options.minutes is None else options.minutes
    with _default_device(options.device):
        run_task(
            options.task,
            Setting(options.backend, options.data, options.out, minutes, options.seed, options.stream, options.train),
        )


def _list_tasks() -> None:
    from raremem.benchmarks.data.downloads import DATA_SETS
    from raremem.benchmarks.registry import TASKS, find

    for name, task in ((name, find(name)) for name in TASKS):
        wanted = f"--data with {DATA_SETS[task.data].title}, or --data download; " if task.data else ""
        print(f"{name:16} {task.title}\n{'':16} needs {wanted}{task.needs}; --minutes {task.minutes:g} by default")


def _default_device(name: str | None) -> AbstractContextManager[object]:
    """A context in which PyTorch creates tensors on that device; without a name it changes nothing."""
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
    for package in ("hypothesis", "pytest"):
        if importlib.util.find_spec(package) is None:
            raise raremem.MissingPackageError(f"the laws need {package}: pip install 'raremem[conformance]'")


def conformance(options: argparse.Namespace) -> int:
    """Run the laws. Status 1 if one is broken, 2 if none could be run."""
    _needs_the_kit()
    import pytest

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


def mutants(options: argparse.Namespace) -> int:
    """Try the laws on changed code. Status 1 if a change that some user could tell broke no law."""
    _needs_the_kit()
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


def backends(options: argparse.Namespace) -> None:
    """Say what is installed."""
    for info in raremem.backends().values():
        state = f"{info.version} on {info.device}" if info.installed else f"missing: {info.missing}"
        print(f"{info.name:10} {state}\n{'':10} choose it for {info.choose_for}")


def inspect(options: argparse.Namespace) -> None:
    """Say what is in a memory's file."""
    from raremem.benchmarks.inspection.run import run_inspection

    run_inspection(options.file, options.out, options.payload, options.memory)


def demo(options: argparse.Namespace) -> None:
    """Run the demo."""
    from raremem.benchmarks.demo.run import run_demo

    run_demo(options.backend, options.data, options.out, options.seed)
