"""Arithmetic on dimensions that may be symbolic.

A dimension is an `int`, or a `str` that names it (`"batch"`) or spells an expression of names (`"2*batch + 1"`). Expressions
are polynomials with integer coefficients, always written in one canonical way, so that equal dimensions are equal strings.
What is not a polynomial (a division that leaves a rest) becomes a name of its own: `"((seq + 1)//(2))"`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import lru_cache

Dim = int | str
Monomial = tuple[str, ...]
Polynomial = dict[Monomial, int]


def add(left: Dim, right: Dim) -> Dim:
    """`left + right`."""
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    return _write(_sum(_parse(left), _parse(right)))


def multiply(left: Dim, right: Dim) -> Dim:
    """`left * right`."""
    if isinstance(left, int) and isinstance(right, int):
        return left * right
    return _write(_product(_parse(left), _parse(right)))


def subtract(left: Dim, right: Dim) -> Dim:
    """`left - right`."""
    return add(left, multiply(-1, right))


def divide(left: Dim, right: Dim) -> Dim:
    """`left // right`, rounded down. Exact where `right` is one term that divides every term of `left`."""
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    if left == right:
        return 1
    exact = divide_exactly(left, right)
    return f"(({left})//({right}))" if exact is None else exact


def divide_exactly(left: Dim, right: Dim) -> Dim | None:
    """`left / right` where it leaves no rest for any value of the symbols, else None."""
    divisor = _parse(right)
    if len(divisor) != 1:
        return 1 if left == right else None
    ((names, factor),) = divisor.items()
    quotient: Polynomial = {}
    for term, value in _parse(left).items():
        rest = list(term)
        for name in names:
            if name not in rest:
                return None
            rest.remove(name)
        if factor == 0 or value % factor:
            return None
        quotient[tuple(rest)] = value // factor
    return _write(quotient)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of all, 1 for none."""
    total: Dim = 1
    for dim in dims:
        total = multiply(total, dim)
    return total


def canonical(dim: Dim) -> Dim:
    """The one way to write this dimension; an int where the expression is one."""
    return dim if isinstance(dim, int) else _write(_parse(dim))


def substitute(dim: Dim, values: dict[str, Dim]) -> Dim:
    """`dim` with symbols replaced; a division that was a name of its own is divided again."""
    if isinstance(dim, int) or not values:
        return dim
    total: Dim = 0
    for names, factor in _parse(dim).items():
        term: Dim = factor
        for name in names:
            term = multiply(term, _substitute_atom(name, values))
        total = add(total, term)
    return total


def _substitute_atom(name: str, values: dict[str, Dim]) -> Dim:
    if name in values:
        return values[name]
    tree = _tree(name)
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.FloorDiv):
        return divide(substitute(ast.unparse(tree.left), values), substitute(ast.unparse(tree.right), values))
    return name


@lru_cache(maxsize=4096)
def _parse_text(text: str) -> tuple[tuple[Monomial, int], ...]:
    tree = _tree(text)
    return tuple((_polynomial(tree) if tree is not None else {(text,): 1}).items())


def _parse(dim: Dim) -> Polynomial:
    return ({(): dim} if dim else {}) if isinstance(dim, int) else dict(_parse_text(dim))


def _tree(text: str) -> ast.expr | None:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return None


def _polynomial(tree: ast.expr) -> Polynomial:
    match tree:
        case ast.Constant(value=int(number)):
            return _parse(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _product({(): -1}, _polynomial(operand))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _sum(_polynomial(left), _polynomial(right))
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _sum(_polynomial(left), _product({(): -1}, _polynomial(right)))
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _product(_polynomial(left), _polynomial(right))
        case ast.BinOp(left=left, op=ast.FloorDiv(), right=right):
            over, under = _write(_polynomial(left)), _write(_polynomial(right))
            exact = divide_exactly(over, under)
            return {(f"(({over})//({under}))",): 1} if exact is None else _parse(exact)
        case _:
            return {(ast.unparse(tree) if isinstance(tree, ast.Name | ast.Call) else f"({ast.unparse(tree)})",): 1}


def _sum(left: Polynomial, right: Polynomial) -> Polynomial:
    total = dict(left)
    for names, factor in right.items():
        total[names] = total.get(names, 0) + factor
    return total


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    total: Polynomial = {}
    for a, x in left.items():
        for b, y in right.items():
            names = tuple(sorted(a + b))
            total[names] = total.get(names, 0) + x * y
    return total


def _write(polynomial: Polynomial) -> Dim:
    terms = sorted(((names, factor) for names, factor in polynomial.items() if factor), key=lambda term: (-len(term[0]), term[0]))
    if not terms:
        return 0
    if len(terms) == 1 and not terms[0][0]:
        return terms[0][1]
    text = ""
    for names, factor in terms:
        parts = [*([str(abs(factor))] if abs(factor) != 1 or not names else []), *names]
        sign = ("-" if factor < 0 else "") if not text else (" - " if factor < 0 else " + ")
        text += sign + "*".join(parts)
    return text
