"""The tasks of `raremem bench`, by name. A task is imported when it is asked for."""

from __future__ import annotations

import importlib

from raremem.benchmarks.task import Task

TASKS = {
    "omniglot": "omniglot:TASK",
    "omniglot-margin": "omniglot:MARGIN",
    "omniglot-wide": "omniglot:WIDE",
    "omniglot-large": "omniglot:LARGE",
    "lifelong": "lifelong:TASK",
    "symbols": "symbols.run:TASK",
    "translation": "translation.run:TASK",
    "translation-multi30k": "translation_multi30k.run:TASK",
    "speed": "speed:TASK",
    "index": "index:TASK",
    "index-omniglot": "index:CHARACTERS",
    "intents": "intents.run:TASK",
    "intents-arriving": "intents.run:ARRIVING",
    "intents-pixels": "intents.run:PIXELS",
    "intents-rates": "intents.run:RATES",
    "ranks": "ranks:TASK",
}
"""For each name the module in `tasks/`, and the task's name in it; in the order in which they are listed."""


def find(name: str) -> Task:
    """The task of that name.

    Raises:
        KeyError: there is none.
    """
    module, _, attribute = TASKS[name].partition(":")
    return getattr(importlib.import_module(f"raremem.benchmarks.tasks.{module}"), attribute)
