"""What a little expression computes, whatever order and spelling an exporter wrote it in."""

from __future__ import annotations

import onnx_ir as ir

from edgekit.hub.edit import producer, scalar, shape

Polynomial = dict[int, float]  # power of x → coefficient

_DEPTH = 8


def polynomial(value: ir.Value | None, x: ir.Value, depth: int = _DEPTH) -> Polynomial | None:
    """`value` as a polynomial in `x` with scalar coefficients, through Add, Sub, Mul, Div, Neg and whole powers.

    None where it is anything else.
    """
    if value is None or depth == 0:
        return None
    if value is x:
        return {1: 1.0}
    constant = scalar(value)
    if constant is not None:
        return {0: constant}
    node = producer(value, "Add", "Sub", "Mul", "Div", "Neg", "Pow")
    if node is None:
        return None
    parts = [polynomial(operand, x, depth - 1) for operand in node.inputs]
    left = parts[0]
    if left is None:
        return None
    if node.op_type == "Neg":
        return _scaled(left, -1.0)
    right = parts[1]
    if right is None:
        return None
    match node.op_type:
        case "Add":
            return _sum(left, right)
        case "Sub":
            return _sum(left, _scaled(right, -1.0))
        case "Mul":
            return _product(left, right)
    number = right.get(0, 0.0) if set(right) <= {0} else None
    if node.op_type == "Div" and number:
        return _scaled(left, 1 / number)
    if node.op_type == "Pow" and number in (1.0, 2.0, 3.0):
        result = left
        for _ in range(int(number) - 1):
            result = _product(result, left)
        return result
    return None


def factors(value: ir.Value, depth: int = _DEPTH) -> tuple[float, list[ir.Value]]:
    """`value` as a number times a product of values: Mul, Div by a scalar and Neg are taken apart."""
    node = producer(value, "Mul", "Div", "Neg")
    if node is None or depth == 0 or shape(value) is None:
        return 1.0, [value]
    left = node.inputs[0]
    assert left is not None
    if node.op_type == "Neg":
        number, values = factors(left, depth - 1)
        return -number, values
    right = node.inputs[1]
    assert right is not None
    for one, other in ((left, right), (right, left)):
        constant = scalar(other)
        if constant is not None and (node.op_type == "Mul" or (other is right and constant)):
            number, values = factors(one, depth - 1)
            return (number * constant if node.op_type == "Mul" else number / constant), values
    if node.op_type == "Div":
        return 1.0, [value]
    (a, first), (b, second) = factors(left, depth - 1), factors(right, depth - 1)
    return a * b, first + second


def close(found: Polynomial | None, expected: Polynomial) -> bool:
    """Whether two polynomials are equal up to the rounding of float32 constants."""
    if found is None:
        return False
    powers = {power for power, factor in found.items() if factor} | set(expected)
    return all(near(found.get(power, 0.0), expected.get(power, 0.0)) for power in powers)


def near(found: float, expected: float) -> bool:
    """Whether a constant is the expected number up to the rounding of float32."""
    return abs(found - expected) <= 2e-6 * max(abs(expected), 1e-3)


def _sum(left: Polynomial, right: Polynomial) -> Polynomial:
    return {power: left.get(power, 0.0) + right.get(power, 0.0) for power in {**left, **right}}


def _scaled(terms: Polynomial, factor: float) -> Polynomial:
    return {power: value * factor for power, value in terms.items()}


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    total: Polynomial = {}
    for a, x in left.items():
        for b, y in right.items():
            total[a + b] = total.get(a + b, 0.0) + x * y
    return total
