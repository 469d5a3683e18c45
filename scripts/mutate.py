"""Mutation testing: the small changes to one pure module that its own tests would let through.

    .venv/bin/python scripts/mutate.py src/handrail/core/sse.py --tests tests/unit/core/test_sse.py

Every mutant is the module with one change: another comparison or constant, a condition that always
holds, a statement or a table's entry that is gone. One that the tests accept is printed as a
survivor: a gap in the tests, or a change that nobody can see. Mutants live in copies of the tree,
never in the tree itself; the tests run without conftest.py (a pure module needs no fixtures).
"""

import argparse
import ast
import copy
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PYTEST = ("-x", "-q", "--noconftest", "-p", "no:cacheprovider", "--hypothesis-profile=ci")

# An operator -> what may stand in its place.
OPERATORS = {
    "Eq": "NotEq", "NotEq": "Eq", "Is": "IsNot", "IsNot": "Is", "In": "NotIn", "NotIn": "In",
    "Lt": "LtE GtE", "LtE": "Lt Gt", "Gt": "GtE LtE", "GtE": "Gt Lt", "And": "Or", "Or": "And",
    "Add": "Sub", "Sub": "Add", "Mult": "Div", "Div": "Mult", "BitOr": "BitAnd", "BitAnd": "BitOr",
}  # fmt: skip
# A function or method -> the one called in its place; "" is no call: text.strip() -> text.
NAMES = {
    "min": "max", "max": "min", "any": "all", "all": "any", "sorted": "", "strip": "",
    "lower": "upper", "upper": "lower", "lstrip": "", "rstrip": "", "find": "rfind",
    "startswith": "endswith", "endswith": "startswith", "removeprefix": "", "removesuffix": "",
    "partition": "rpartition", "rpartition": "partition", "fullmatch": "match", "replace": "",
}  # fmt: skip
ENTRIES = {"Dict": "keys values", "Tuple": "elts", "List": "elts", "Set": "elts",
           "comprehension": "ifs"}  # fmt: skip
OTHERS: dict[type, Callable[[Any], tuple[Any, ...]]] = {  # constants that are tried instead
    bool: lambda value: (not value,), int: lambda value: (value + 1, value - 1),
    str: lambda value: ("" if value else "XX",), bytes: lambda value: (b"" if value else b"XX",),
}  # fmt: skip
DROPPED = ast.Expr | ast.Assign | ast.AugAssign | ast.Raise | ast.Break | ast.Continue | ast.Delete
Options = argparse.Namespace
Mutant = tuple[int, str, str]  # line, change in words, the whole module with it


def with_fields(node: ast.AST, **fields: Any) -> ast.AST:
    """The node with other fields."""
    other = copy.copy(node)
    vars(other).update(fields)
    return other


def calls(node: ast.Call) -> Iterator[ast.AST]:
    """The call to another function, without the call, or without one of its keywords."""
    field = "attr" if isinstance(node.func, ast.Attribute) else "id"
    other = NAMES.get(getattr(node.func, field, ""))
    if other:
        yield with_fields(node, func=with_fields(node.func, **{field: other}))
    elif other is not None:
        yield node.func.value if isinstance(node.func, ast.Attribute) else node.args[0]
    for at in range(len(node.keywords)):
        yield with_fields(node, keywords=node.keywords[:at] + node.keywords[at + 1 :])


def shorter(node: ast.AST) -> Iterator[ast.AST]:
    """A table, tuple, list or set without one of its entries, a comprehension without a filter."""
    names = ENTRIES.get(type(node).__name__, "").split()
    if names and not isinstance(getattr(node, "ctx", None), ast.Store):
        old = {name: getattr(node, name) for name in names}
        for at in range(len(old[names[0]])):
            yield with_fields(node, **{name: old[name][:at] + old[name][at + 1 :] for name in old})


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a statement, an expression or an operator."""
    yield from (getattr(ast, name)() for name in OPERATORS.get(type(node).__name__, "").split())
    yield from shorter(node)
    if isinstance(node, ast.Constant):
        yield from map(ast.Constant, OTHERS.get(type(node.value), lambda _: ())(node.value))
    elif isinstance(node, ast.Call):
        yield from calls(node)
    elif isinstance(node, ast.BoolOp):
        yield from node.values
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        for truth in (True, False)[isinstance(node, ast.While) :]:
            yield with_fields(node, test=ast.Constant(truth))
    elif isinstance(node, DROPPED):
        yield ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None:
        yield ast.Return(ast.Constant(None))


def sites(node: ast.AST) -> Iterator[tuple[Any, Any, ast.AST]]:
    """Every node worth changing, and where it hangs; no docstring, annotation or decorator."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        parent: Any = value if isinstance(value, list) else vars(node)
        for at in range(len(value)) if parent is value else [field]:
            child = parent[at]
            docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not docstring:
                if field != "slice" or not isinstance(child, ast.Tuple):  # that would be a type
                    yield parent, at, child
                yield from sites(child)


def difference(before: str, after: str) -> str:
    """The first line that differs, cut to the part that does and a little around it."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    old, new = next((pair for pair in pairs if pair[0] != pair[1]), ("", "(end)"))
    start = len(os.path.commonprefix([old, new]))  # noqa: RUF071
    end = len(os.path.commonprefix([old[start:][::-1], new[start:][::-1]]))  # noqa: RUF071
    first, last = max(0, start - 25), max(0, end - 25)
    return " -> ".join(line[first : len(line) - last].strip()[:120] for line in (old, new))


def mutants(text: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    tree = ast.parse(text)
    plain, line = ast.unparse(tree), 1
    for parent, at, node in list(sites(tree)):
        line = getattr(node, "lineno", line)
        for other in changed(node):
            parent[at] = other
            mutant = ast.unparse(tree)
            if mutant != plain:
                yield line, difference(plain, mutant), mutant
        parent[at] = node


def accepted(mutant: str, tree: Path, options: Options, *, timeout: float = 600) -> bool:
    """Whether the tests pass in this copy of the tree, in time, with this text as the module."""
    (path := tree / options.module).write_text(mutant)
    # A mutant of the same second and length would be taken for the one compiled before it.
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
    paths = {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", *PYTEST, *options.tests]
    where: Any = {"cwd": tree, "env": {**os.environ, **paths}, "timeout": timeout}
    try:
        return subprocess.run(command, capture_output=True, check=False, **where).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def survivors(options: Options, text: str, found: list[Mutant]) -> int:
    """How many mutants of the module with this text the tests accept; prints each."""
    others = set(os.listdir(ROOT)) - {"src", "tests", "pyproject.toml"}
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        trees = [Path(folder, str(number)) for number in range(options.jobs)]
        for tree in trees:
            shutil.copytree(ROOT, tree, ignore=lambda at, _: others if at == str(ROOT) else ())
        started = time.monotonic()
        if not accepted(text, trees[0], options):
            sys.exit("the tests fail without any change")
        timeout = 10 + 5 * (time.monotonic() - started)
        if accepted("raise SystemError", trees[0], options):
            sys.exit("these tests do not load the module")

        def work(number: int) -> int:
            alive = 0
            for line, change, mutant in found[number :: options.jobs]:
                if accepted(mutant, trees[number], options, timeout=timeout):
                    alive += 1
                    print(f"{options.module}:{line}: {change}", flush=True)
            return alive

        # Not in a `with`: Ctrl-C removes the copies, and that ends the workers.
        return sum(ThreadPoolExecutor(options.jobs).map(work, range(options.jobs)))


def main() -> int:
    """Try the mutants of one module; the survivors and their number on standard output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("module", type=Path, help="the file to change, below src/")
    parser.add_argument("--tests", nargs="+", required=True, help="what pytest runs")
    parser.add_argument("--lines", nargs="+", type=int, help="only the mutants of these lines")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at a time (2)")
    options = parser.parse_args()
    options.module = options.module.resolve().relative_to(ROOT)
    text = (ROOT / options.module).read_text()
    found = [each for each in mutants(text) if not options.lines or each[0] in options.lines]
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))  # bytes; a mutant may grow for ever
    alive = survivors(options, text, found)
    print(f"{options.module}: {len(found)} mutants, {len(found) - alive} killed, {alive} survive")
    return 0


if __name__ == "__main__":
    sys.exit(main())
