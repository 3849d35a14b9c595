"""The options of the command `raremem`, and which function does what they ask for."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import raremem
from raremem.command import actions
from raremem.command.lines import as_line

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["_Parser"]


class _Parser(argparse.ArgumentParser):
    """A parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser`."""
        self.exit(2, f"{self.prog}: {as_line(message)}; see {self.prog} --help\n")


def _path(name: str) -> Path:
    """A path; an empty name is an error."""
    if not name:
        raise argparse.ArgumentTypeError("expected a name, and there is none")
    return Path(name)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands. Each command sets `run`, the function that executes it."""
    top = _Parser(prog="raremem", description="A life-long memory for neural networks.")
    top.add_argument("--version", action="version", version=f"raremem {raremem.__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    backends = commands.add_parser("backends", help="what is installed, and which adapter to choose for what")
    backends.set_defaults(run=actions.backends)
    _add_inspect(commands)
    _add_conformance(commands)
    _add_mutants(commands)
    _add_demo(commands)
    _add_bench(commands)
    return top


def _add_inspect(commands: Commands) -> None:
    inspect = commands.add_parser("inspect", help="what is in a memory's file: what is stored, confused, and would go next")
    inspect.add_argument("file", type=_path, metavar="FILE", help="of a memory, a classifier, or a model (or its folder)")
    inspect.add_argument("--out", type=_path, metavar="FILE", help="write a page (HTML); default: print a summary only")
    inspect.add_argument(
        "--payload",
        type=_path,
        metavar="FILE",
        help="what each slot holds (of a classifier: each example learned, in that order): lines of text, or .json with a list",
    )
    inspect.add_argument("--memory", metavar="NAME", help="which, where a model has several")
    inspect.set_defaults(run=actions.inspect)


def _add_conformance(commands: Commands) -> None:
    conformance = commands.add_parser("conformance", help="run every law of the specification on a backend, yours or ours")
    conformance.add_argument(
        "--backend", action="append", required=True, metavar="NAME", help="numpy, torch, jax, or package.module:attribute"
    )
    conformance.add_argument("--examples", type=int, default=50, metavar="N", help="cases for each law; default: 50")
    conformance.add_argument("--expected-failures", type=_path, metavar="FILE", help="lines 'law[backend-mode]  # reason'")
    conformance.add_argument("--report", type=_path, metavar="FILE", help="write what came out as JSON")
    conformance.add_argument("--device", metavar="NAME", help="PyTorch's, cuda say; JAX takes its own default")
    conformance.set_defaults(run=actions.conformance)


def _add_mutants(commands: Commands) -> None:
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
    mutants.set_defaults(run=actions.mutants)


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser("demo", help="train a small network, then let it remember characters seen once")
    demo.add_argument("--backend", choices=("torch", "jax"), default="torch", help="default: torch")
    _add_data(demo, "a folder with Omniglot (its zips or .npz); default: RAREMEM_DATA, or characters drawn here")
    demo.add_argument("--out", type=_path, default=Path("out"), metavar="DIR", help="for report.html; default: out")
    demo.add_argument("--seed", type=int, default=0, help="default: 0")
    demo.set_defaults(run=actions.demo)


def _add_bench(commands: Commands) -> None:
    from raremem.benchmarks.registry import TASKS

    bench = commands.add_parser("bench", help="run a benchmark task; --list says what each needs")
    bench.add_argument("task", nargs="?", choices=tuple(TASKS))
    bench.add_argument("--list", action="store_true", help="the tasks, and what each needs")
    bench.add_argument("--backend", choices=("torch", "jax", "numpy"), default="torch", help="default: torch")
    bench.add_argument("--minutes", type=float, metavar="N", help="of training; default: what --list says")
    _add_data(bench, "a folder with the data, or the word download; default: RAREMEM_DATA")
    bench.add_argument("--out", type=_path, default=Path("out"), metavar="DIR", help="for results; default: out")
    bench.add_argument("--seed", type=int, default=0, help="default: 0")
    for name, what in (("stream", "translate sentence by sentence"), ("train", "train on")):
        bench.add_argument(
            f"--{name}",
            type=_path,
            metavar="PATH",
            help=f"for translation: text of your own to {what}: a folder with stream.en and stream.de (or one other pair "
            "NAME.en, NAME.de), or .po files",
        )
    bench.add_argument("--device", metavar="NAME", help="PyTorch's, cuda say, for speed; JAX takes its own default")
    bench.set_defaults(run=actions.bench)


def _add_data(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--data", type=_path, default=os.environ.get("RAREMEM_DATA") or None, metavar="PATH", help=text)
