"""Planting a fault: the code with a wrong text in it, for as long as a law is tried on it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType

from raremem.backend import Backend
from raremem.reference.laws import LAWS, Law, run
from raremem.reference.mutation.players import PLAYERS
from raremem.state import backends_of


@dataclass(frozen=True)
class Fault:
    """A mistake: in which module, which text, and what stands there instead. `backend` is the one that shows it, or a player of
    the mutation campaign, and `compiled` says how. `law` catches it."""

    name: str
    module: str
    right: str
    wrong: str
    backend: str = "numpy"
    compiled: bool = False
    law: str = ""


@contextlib.contextmanager
def planted(fault: Fault) -> Iterator[Backend]:
    """A backend made while the fault stands in the code; afterwards the code is as it was."""
    of = importlib.import_module(f"raremem.adapters.{fault.backend.partition(',')[0]}").backend
    module = importlib.import_module(fault.module)
    source = inspect.getsource(module)
    if source.count(fault.right) != 1:
        raise LookupError(f"fault {fault.name!r}: {fault.right!r} stands {source.count(fault.right)} times in {fault.module}.")
    mutant = importlib.util.module_from_spec(module.__spec__)  # type: ignore[arg-type]
    entered = dict(backends_of)
    sys.modules[fault.module] = mutant
    try:
        exec(compile(source.replace(fault.right, fault.wrong), str(module.__file__), "exec"), mutant.__dict__)
    finally:
        sys.modules[fault.module] = module
        backends_of.update(entered)
    with _methods_replaced(module, mutant), _functions_replaced(module, mutant):
        if "," in fault.backend:
            yield PLAYERS[fault.backend][0]()
        else:
            yield type(of)(type(of.primitives)(), type(of.searcher)(), compiled=fault.compiled)


@contextlib.contextmanager
def _functions_replaced(old: ModuleType, new: ModuleType) -> Iterator[None]:
    """Wherever a loaded module of raremem holds a function or constant that `old` defines, let it hold what `new` does."""
    changed = []
    for module in [module for name, module in sys.modules.items() if name.startswith("raremem")]:
        for name, value in list(vars(module).items()):
            ours = value is old or getattr(value, "__module__", None) == old.__name__ or module is old
            replacement = new if value is old else vars(new).get(name)
            if ours and replacement is not None and replacement is not value and not name.startswith("__"):
                changed.append((module, name, value))
                setattr(module, name, replacement)
    try:
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)


@contextlib.contextmanager
def _methods_replaced(old: ModuleType, new: ModuleType) -> Iterator[None]:
    """Classes stay, since others are derived from them, and so do their instances; let the classes have those methods of `new`
    that are not as they were."""
    changed = []
    for name, value in vars(old).items():
        if type(value).__module__ == old.__name__:
            setattr(new, name, value)
        if not inspect.isclass(value) or value.__module__ != old.__name__:
            continue
        methods = vars(vars(new)[name])
        setattr(new, name, value)
        for method, function in list(vars(value).items()):
            other = methods.get(method)
            if inspect.isfunction(function) and inspect.isfunction(other) and _differ(function.__code__, other.__code__):
                changed.append((value, method, function))
                setattr(value, method, _of_class(other, value))
    try:
        yield
    finally:
        for value, method, function in changed:
            setattr(value, method, function)


def _of_class(function: FunctionType, owner: type) -> FunctionType:
    """A method of another class as one of this: `super()` looks for its class in a cell."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name == "__class__":
            cell.cell_contents = owner
    return function


def _differ(one: CodeType, other: CodeType) -> bool:
    """Whether two functions do something else, wherever they stand."""
    return (one.co_code, one.co_names, one.co_consts) != (other.co_code, other.co_names, other.co_consts)


def caught_by(fault: Fault, examples: int = 30) -> Iterator[str]:
    """The laws that do not hold while the fault stands, as found: first its own; slow ones if no other has."""
    with planted(fault) as backend:
        caught = False
        for law in sorted(LAWS.values(), key=lambda law: (law.name != fault.law, _is_slow(law))):
            if not (_is_slow(law) and caught) and not holds(law.name, backend, examples):
                caught = True
                yield law.name


def _is_slow(law: Law) -> bool:
    return law.costly or law.late


def holds(name: str, backend: Backend, examples: int = 30) -> bool:
    """Whether a law holds on a backend, or is none for it."""
    law = LAWS[name]
    if not law.runs_on(backend):
        return True
    try:
        run(law, backend, examples, shrink=False)
    except Exception:
        return False
    return True
