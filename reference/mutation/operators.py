"""Mutants of a module: each is one small change, of a kind that people make, found in the syntax tree.

Docstrings, annotations, types, imports, `__all__`, decorators, assertions and the texts of errors are not changed. The key of a
mutant is its module, its function, and the text of its statement before and after the change. It has no line number, so that a
mutant keeps its key when other lines of the module change.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "&"),
}
BOTH_SIDES_ALONE = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.BitAnd, ast.BitOr, ast.BitXor)
TWINS = (("min", "max"), ("amin", "amax"), ("minimum", "maximum"), ("any", "all"), ("argmax", "argmin"), ("zeros", "ones"))
OTHER_NAME = {one: other for pair in TWINS for one, other in (pair, pair[::-1])}
NAMESPACES = {"p", "xp", "np", "math", "primitives"}
"""Names of modules and tables: their functions take the value as first argument, where a method has it before the dot."""
WRAPPERS = {"int", "float", "bool", "abs", "min", "max", "sorted", "tuple", "list"}
NEVER_SWAPPED = {"p", "xp", "config", "self"}
"""Names of arguments that would fail at once in any other place."""
LOOSE = (ast.Constant, ast.BinOp, ast.BoolOp, ast.Compare, ast.UnaryOp, ast.IfExp, ast.Lambda, ast.NamedExpr)
"""Expressions that need parentheses in the place of a name."""
COMPOUND = (ast.FunctionDef, ast.ClassDef, ast.If, ast.For, ast.While, ast.With, ast.Try)
TYPES = {"TypeVar", "NewType", "ParamSpec", "NamedTuple"}


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
        module: its name.
        function: the qualified name of the function that holds the statement; "" outside of all.
        operator: the kind of change.
        line: where the change begins.
        before: the text of the statement, or of its head where it holds others.
        after: the same with the change.
        source: the module's text with the change.
        first: the line where the statement begins.
        last: the line where it ends, or its head.
    """

    module: str
    function: str
    operator: str
    line: int
    before: str
    after: str
    source: str = field(repr=False)
    first: int = 0
    last: int = 0

    @property
    def key(self) -> str:
        """Its name, which no other mutant has, and which stays when other lines change."""
        return f"{self.module}:{self.function}: {self.before} -> {self.after}"


def mutants(module: str, source: str) -> list[Mutant]:
    """All mutants of a module, by the line. Of two with the same key, the second has "(2)" at the end of `after`."""
    found, seen = [], Counter[str]()
    for mutant in _Walk(module, source).all():
        seen[mutant.key] += 1
        times = seen[mutant.key]
        found.append(mutant if times == 1 else replace(mutant, after=f"{mutant.after} ({times})"))
    return found


Edit = tuple[str, int, int, str]
"""The kind of change, its first and last place in the bytes of the module, and the new text."""


class _Walk:
    def __init__(self, module: str, source: str) -> None:
        self.module, self.bytes = module, source.encode()
        self.tree = ast.parse(source)
        self.lines = [0]
        for line in self.bytes.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def all(self) -> Iterator[Mutant]:
        for statement in self.tree.body:
            if not _is_type(statement):
                yield from self._statement(statement, "")

    def _statement(self, statement: ast.stmt, function: str) -> Iterator[Mutant]:
        """The mutants of a statement: of its head, then of the statements in it."""
        if isinstance(statement, (ast.Import, ast.ImportFrom, ast.Assert, ast.Global, ast.Nonlocal, ast.Pass)):
            return
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return
        start, end = self._span(statement)
        bodies = [part for name in ("body", "orelse", "finalbody") for part in getattr(statement, name, [])]
        bodies += [part for handler in getattr(statement, "handlers", []) for part in handler.body]
        if bodies:
            end = self._span(statement.body[0])[0]  # type: ignore[attr-defined]
        for operator, first, last, text in self._edits_of(statement, function):
            yield self._mutant(function, operator, start, max(end, last), first, last, text)
        inner = f"{function}.{statement.name}" if isinstance(statement, (ast.FunctionDef, ast.ClassDef)) else function
        for part in bodies:
            yield from self._statement(part, inner.lstrip("."))

    def _mutant(self, function: str, operator: str, start: int, end: int, first: int, last: int, text: str) -> Mutant:
        before, after = (
            self.bytes[start:end].decode(),
            (self.bytes[start:first] + text.encode() + self.bytes[last:end]).decode(),
        )
        source = (self.bytes[:first] + text.encode() + self.bytes[last:]).decode()
        line, begins = (self.bytes[:place].count(b"\n") + 1 for place in (first, start))
        ends = begins + before.rstrip().count("\n")
        return Mutant(self.module, function, operator, line, _one_line(before), _one_line(after), source, begins, ends)

    def _edits_of(self, statement: ast.stmt, function: str) -> Iterator[Edit]:
        yield from self._whole(statement, function)
        if isinstance(statement, ast.Raise):
            return
        for part in _expressions(statement):
            for node in _in_order(part):
                yield from self._node(node)

    # Whole statements

    def _whole(self, statement: ast.stmt, function: str) -> Iterator[Edit]:
        start, end = self._span(statement)
        if self._may_go(statement):
            yield "statement dropped", start, end, "pass"
        if isinstance(statement, ast.Return) and not _is_none(statement.value):
            yield "nothing returned", start, end, "return None"
        if isinstance(statement, (ast.If, ast.While)):
            first, last = self._outside(*self._span(statement.test))
            yield "condition turned round", first, last, f"not ({self._text(statement.test)})"
            yield "condition always false", first, last, "False"
        if isinstance(statement, ast.If):
            yield "condition always true", *self._outside(*self._span(statement.test)), "True"
        if isinstance(statement, ast.With) and all(item.optional_vars is None for item in statement.items):
            head = self._span(statement.items[-1].context_expr)[1]
            yield "context left out", start, self.bytes.index(b":", head) + 1, "if True:"

    def _may_go(self, statement: ast.stmt) -> bool:
        """Whether the program makes sense without the statement."""
        if isinstance(statement, ast.Assign):
            inside = [node for target in statement.targets for node in ast.walk(target)]
            return all(
                self._bound_before(node) for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            )
        kinds = (ast.AugAssign, ast.Raise, ast.Delete, ast.Break, ast.Continue)
        return isinstance(statement, kinds) or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call))

    def _bound_before(self, target: ast.Name) -> bool:
        """Whether a name that is assigned to has a value before: as a parameter, or from an earlier line."""
        around = [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef) and _holds(node, target)]
        if not around:
            return False
        function = around[-1]
        for node in ast.walk(function):
            if isinstance(node, ast.arg) and node.arg == target.id:
                return True
            stored = isinstance(node, ast.Name) and node.id == target.id and isinstance(node.ctx, ast.Store)
            if stored and node.lineno < target.lineno:  # type: ignore[attr-defined]
                return True
        return False

    # Expressions

    def _node(self, node: ast.AST) -> Iterator[Edit]:
        """The changes of one expression, not of the expressions in it."""
        if isinstance(node, ast.Compare):
            for left, operation, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                token, others = COMPARISONS[type(operation)]
                for other in others:
                    yield "comparison", *self._token(left, right, token), other
        elif isinstance(node, ast.BinOp):
            yield from self._arithmetic(node)
        elif isinstance(node, ast.AugAssign):
            token, other = ARITHMETIC[type(node.op)]
            yield "arithmetic", *self._token(node.target, node.value, token), other
        elif isinstance(node, ast.BoolOp):
            yield from self._logic(node)
        elif isinstance(node, ast.UnaryOp):
            first, last = self._span(node)[0], self._span(node.operand)[0]
            token = {ast.Not: "not", ast.Invert: "~", ast.USub: "-", ast.UAdd: "+"}[type(node.op)]
            yield "sign or negation dropped", first, last, self.bytes[first:last].decode().replace(token, "", 1).lstrip()
        elif isinstance(node, ast.Constant):
            for value in _other_constants(node.value):
                yield "constant", *self._span(node), value
        elif isinstance(node, ast.IfExp):
            asked, yes, no = map(self._tight, (node.test, node.body, node.orelse))
            yield "branches swapped", *self._span(node), f"({no} if {asked} else {yes})"
            yield "one branch", *self._span(node), yes
            yield "one branch", *self._span(node), no
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            yield from self._slice(node.slice)
        elif isinstance(node, ast.comprehension):
            for test in node.ifs:
                yield "condition turned round", *self._outside(*self._span(test)), f"not ({self._text(test)})"
                yield "condition always true", *self._outside(*self._span(test)), "True"
        elif isinstance(node, ast.Call):
            yield from self._call(node)

    def _arithmetic(self, node: ast.BinOp) -> Iterator[Edit]:
        if not isinstance(node.op, ast.MatMult):
            token, other = ARITHMETIC[type(node.op)]
            yield "arithmetic", *self._token(node.left, node.right, token), other
        if isinstance(node.op, BOTH_SIDES_ALONE):
            yield "one side", *self._span(node), self._tight(node.left)
            yield "one side", *self._span(node), self._tight(node.right)

    def _logic(self, node: ast.BoolOp) -> Iterator[Edit]:
        token, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield "and, or", *self._token(left, right, token), other
        for left_out in node.values:
            rest = [self._tight(value) for value in node.values if value is not left_out]
            text = f" {token} ".join(rest)
            yield "one side", *self._span(node), f"({text})" if len(rest) > 1 else text

    def _slice(self, part: ast.expr) -> Iterator[Edit]:
        for each in part.elts if isinstance(part, ast.Tuple) else [part]:
            if isinstance(each, ast.Slice):
                for bound in (each.lower, each.upper, each.step):
                    if bound is not None:
                        yield "bound of a slice", *self._outside(*self._span(bound)), ""

    def _call(self, node: ast.Call) -> Iterator[Edit]:
        span, name = self._span(node), node.func.attr if isinstance(node.func, ast.Attribute) else _name(node.func)
        plain = not any(isinstance(argument, (ast.Starred, ast.GeneratorExp)) for argument in node.args)
        if name in OTHER_NAME:
            end = self._span(node.func)[1]
            yield "its opposite", end - len(name), end, OTHER_NAME[name]
        if plain:
            for place in range(len(node.args) - 1):
                left, right = node.args[place : place + 2]
                if self._text(left) != self._text(right) and not {_name(left), _name(right)} & NEVER_SWAPPED:
                    (first, end), (start, last) = self._span(left), self._span(right)
                    between = self.bytes[end:start].decode()
                    if between.strip() == ",":
                        yield "arguments swapped", first, last, f"{self._text(right)}{between}{self._text(left)}"
        if name == "where" and len(node.args) == 3:
            yield "one branch", *span, self._tight(node.args[1])
            yield "one branch", *span, self._tight(node.args[2])
        elif isinstance(node.func, ast.Attribute) and _name(node.func.value) not in NAMESPACES:
            if not name[:1].isupper() and not isinstance(node.func.value, ast.Constant):
                yield "call left out", *span, self._tight(node.func.value)
        elif node.args and plain and (isinstance(node.func, ast.Attribute) or name in WRAPPERS):
            yield "call left out", *span, self._tight(node.args[0])
        for keyword in node.keywords:
            if keyword.arg is not None and name not in TYPES:
                rest = [self._text(each) for each in [*node.args, *(each for each in node.keywords if each is not keyword)]]
                yield "keyword left out", *span, f"{self._text(node.func)}({', '.join(rest)})"

    # Text

    def _span(self, node: ast.AST) -> tuple[int, int]:
        first = self.lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return first, self.lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def _outside(self, first: int, last: int) -> tuple[int, int]:
        """The span with the parentheses around it, which belong to no node."""
        while True:
            before, after = self.bytes[:first].rstrip(), self.bytes[last:]
            spaces = len(after) - len(after.lstrip())
            called = before[:-1].rstrip()[-1:]
            if before[-1:] != b"(" or after.lstrip()[:1] != b")" or called.isalnum() or called in (b"_", b"]", b")"):
                return first, last
            first, last = len(before) - 1, last + spaces + 1

    def _text(self, node: ast.AST) -> str:
        first, last = self._span(node)
        return self.bytes[first:last].decode()

    def _tight(self, node: ast.AST) -> str:
        return f"({self._text(node)})" if isinstance(node, LOOSE) else self._text(node)

    def _token(self, left: ast.AST, right: ast.AST, token: str) -> tuple[int, int]:
        """The span of the operator between two operands."""
        first, last = self._span(left)[1], self._span(right)[0]
        place = first + self.bytes[first:last].index(token.encode().split()[0])
        return place, place + len(token)


def _in_order(node: ast.AST) -> Iterator[ast.AST]:
    """An expression and all expressions in it that may be changed."""
    yield node
    if isinstance(node, ast.JoinedStr):
        return
    for child in ast.iter_child_nodes(node):
        yield from _in_order(child)


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """The expressions of a statement's head, without annotations and decorators."""
    if isinstance(statement, ast.FunctionDef):
        yield from statement.args.defaults
        yield from (default for default in statement.args.kw_defaults if default is not None)
    elif isinstance(statement, (ast.If, ast.While)):
        yield statement.test
    elif isinstance(statement, ast.For):
        yield statement.iter
    elif isinstance(statement, ast.With):
        yield from (item.context_expr for item in statement.items)
    elif isinstance(statement, (ast.AugAssign, ast.Expr)):
        yield statement
    elif isinstance(statement, (ast.Assign, ast.AnnAssign, ast.Return)) and statement.value is not None:
        yield statement.value


def _is_type(statement: ast.stmt) -> bool:
    """Whether a statement of a module only names a type, or exports."""
    if not isinstance(statement, ast.Assign):
        return False
    value, target = statement.value, statement.targets[0]
    if _name(target) == "__all__" or isinstance(value, (ast.Subscript, ast.Name, ast.Attribute)):
        return True
    return isinstance(value, ast.Call) and _name(value.func) in TYPES


def _other_constants(value: object) -> list[str]:
    if isinstance(value, bool):
        return [str(not value)]
    if isinstance(value, int):
        return [str(value + 1), str(value - 1)]
    if isinstance(value, float):
        return [repr(value + 1)] + [repr(-value)] * bool(value)
    return []


def _name(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_none(node: ast.expr | None) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


def _holds(function: ast.FunctionDef, node: ast.AST) -> bool:
    return any(each is node for each in ast.walk(function))


def _one_line(text: str) -> str:
    return " ".join(text.split())
