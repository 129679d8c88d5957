"""Operators that compute: what their int8 kernels ask for, and what they give.

Each rule takes an operator and the walk, and writes the integer form or raises StaysFloat. The constraints are those of
tensorflow/lite/kernels and of LiteRT's quantization specification (ai.google.dev/edge/litert/models/quantization_spec).

Where XNNPACK has no int8 kernel, the builtin one is several times slower than DEQUANTIZE, XNNPACK's float kernel and QUANTIZE,
and those compute what ONNX says to the last step: such operators stay in float, unless they end the network.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.litert.graph import Graph, Operator, Quantization, Tensor
from edgekit.litert.quantized.grid import exact_integers, within
from edgekit.litert.quantized.integers import Integers, StaysFloat
from edgekit.litert.rewiring import Rewiring

Rule = Callable[[Operator, Integers], None]

FIXED_RESULTS = {"LOGISTIC": (1 / 256, -128), "LOG_SOFTMAX": (16 / 256, 127), "SOFTMAX": (1 / 256, -128), "TANH": (1 / 128, 0)}
"""Scale and zero point of the results of kernels that give nothing else."""
CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
"""The axis of the weights that may have a scale per place."""
CLAMPS = {"RELU": (0, np.inf), "RELU6": (0, 6), "RELU_0_TO_1": (0, 1), "RELU_N1_TO_1": (-1, 1)}
INTEGER_CLAMPS = ("RELU", "RELU6")
"""Those that have an int8 kernel, under the name of the activation that they are."""
CLAMPING = frozenset("ADD AVERAGE_POOL_2D CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED MAX_POOL_2D MUL SUB TRANSPOSE_CONV".split())
"""Operators whose int8 kernels take a fused activation."""
LARGEST_WINDOW = 25
"""Elements of a pooling that a depthwise convolution does as fast."""
FINER = 1.02
"""How much coarser than the wanted grid an intermediate one may be, for the result to be off by at most one step."""


def _linear(op: Operator, walk: Integers) -> None:
    """int8 weights around zero, per channel or not; the bias is int32 on the grid of the products."""
    if op.options.pop("dynamic_range", False):
        _dynamic(op, walk)
        return
    transposed = op.code == "TRANSPOSE_CONV"
    place, bias_place = (2, 3) if transposed else (0, 2)
    if not walk.is_held(op.inputs[place]) and walk.grid_of_result(op.outputs[0]) is None:
        raise StaysFloat("only its weights are quantized, which are written as float32")
    grid, x = walk.wanted(op), walk.integers(op.inputs[place])
    weights = _weights(op, walk)
    assert x.quantization is not None
    assert weights.quantization is not None
    products = (x.quantization.scale.astype(np.float64) * weights.quantization.scale).astype(np.float32)
    inputs = list(op.inputs)
    inputs[place], inputs[1] = x, weights
    if len(inputs) > bias_place and inputs[bias_place] is not None:
        inputs[bias_place] = _bias(inputs[bias_place], products)
    walk.emit(op.code, inputs, [walk.result(op.outputs[0], grid)], op.options)


def _dynamic(op: Operator, walk: Integers) -> None:
    """int8 weights with a float input, which the kernel quantizes by rows, and a float result."""
    weights = _weights(op, walk)
    grid = weights.quantization
    assert grid is not None
    if op.code == "FULLY_CONNECTED":
        op.options["asymmetricQuantizeInputs"] = True
    elif grid.is_per_tensor:
        # Convolutions with a scale per channel have the better kernels.
        count = int(weights.shape[grid.axis])
        weights.quantization = Quantization(np.resize(grid.scale, count), np.zeros(count, np.int64), grid.axis)
    op.inputs[1] = weights
    walk.keep(op)


def _weights(op: Operator, walk: Integers) -> Tensor:
    tensor = op.inputs[1]
    if tensor is None or tensor.data is None or tensor.quantization is None:
        raise StaysFloat("its weights are not constants quantized to 8 bits along the output channels")
    given = tensor.quantization
    if not given.is_per_tensor and given.axis != CHANNEL_AXIS[op.code]:
        raise StaysFloat("its weights have scales along another axis than the output channels")
    around_zero = Quantization(given.scale, np.zeros_like(given.zero_point), CHANNEL_AXIS[op.code])
    integers = exact_integers(Tensor(tensor.name, tensor.shape, tensor.dtype, tensor.data, around_zero))
    if integers is None:
        raise StaysFloat("its weights are not symmetric, and LiteRT's have no zero point")
    changed = _avoid_overflow(integers, CHANNEL_AXIS[op.code])
    if changed:
        twice = f"the weights {tensor.name!r} hold -128 more than once in an output channel"
        walk.notes.append(f"{twice}: {changed} of them written as -127, since ARM kernels overflow")
    return Tensor(tensor.name, tensor.shape, integers.dtype, integers, around_zero)


def _avoid_overflow(weights: np.ndarray, axis: int) -> int:
    """Leave one -128 to each output channel, in place, and make -127 of the others; how many those are.

    ARM kernels of XNNPACK and ruy add two products of a channel in 16 bits, which -128 * -128 twice overflows. LiteRT's
    specification therefore has no -128 at all; a single one is safe beside any other weight.
    """
    channels = np.moveaxis(weights, axis, 0)
    lowest = channels.reshape(len(channels), -1) == -128
    again = (lowest & (np.cumsum(lowest, axis=1) > 1)).reshape(channels.shape)
    channels[again] = -127
    return int(again.sum())


def _bias(tensor: Tensor | None, scale: np.ndarray) -> Tensor:
    if tensor is None or tensor.data is None:
        raise StaysFloat("its bias is computed at run time")
    integers = np.rint(tensor.data.astype(np.float64) / scale)
    if np.abs(integers).max(initial=0) >= 1 << 31:
        raise StaysFloat("its bias does not fit 32 bits at the scale of its products")
    made = integers.astype(np.int32)
    return Tensor(tensor.name, tensor.shape, made.dtype, made, Quantization(scale, np.zeros(scale.shape, np.int64), 0))


def _sum(op: Operator, walk: Integers) -> None:
    """ADD and SUB bring both operands to a common scale of 20 further bits."""
    grid = walk.wanted(op)
    operands = [_operand(t, walk) for t in op.inputs]
    largest = max(_scale(t) for t in operands)
    if 2 * largest / float(grid.scale[0]) >= 1 << 20:
        raise StaysFloat("the scales of its operands and its result are too far apart")
    walk.emit(op.code, list(operands), [walk.result(op.outputs[0], grid)], op.options)


def _any_scales(op: Operator, walk: Integers) -> None:
    """Operators whose kernels take whatever scales come: all operands integers."""
    grid = walk.wanted(op)
    operands = [_operand(t, walk) for t in op.inputs]
    walk.emit(op.code, list(operands), [walk.result(op.outputs[0], grid)], op.options)


def _first_operand(op: Operator, walk: Integers) -> None:
    """The same for operators whose other inputs are axes and sizes."""
    grid = walk.wanted(op)
    walk.emit(op.code, [walk.integers(op.inputs[0]), *op.inputs[1:]], [walk.result(op.outputs[0], grid)], op.options)


def _fixed_result(op: Operator, walk: Integers) -> None:
    """The kernel's own scale, and a QUANTIZE to the wanted one behind it."""
    grid, x = walk.wanted(op), walk.integers(op.inputs[0])
    scale, zero = FIXED_RESULTS[op.code]
    if scale > FINER * float(grid.scale[0]):
        raise StaysFloat(f"its result has the scale {float(grid.scale[0]):.3g}, finer than the {scale:.3g} that the kernel gives")
    own = Quantization(np.array([scale], np.float32), np.array([zero], np.int64))
    walk.emit(op.code, [x], [walk.result(op.outputs[0], grid if own.same_as(grid) else own)], op.options)


def _same_grid(op: Operator, walk: Integers) -> None:
    """The kernel gives the scale that it takes, and a QUANTIZE to the wanted one follows."""
    grid, x = walk.wanted(op), walk.integers(op.inputs[0])
    own = x.quantization
    assert own is not None
    if not own.same_as(grid) and float(own.scale[0]) > FINER * float(grid.scale[0]):
        raise StaysFloat("its result has a finer scale than its input, and the kernel gives the input's")
    walk.emit(op.code, [x, *op.inputs[1:]], [walk.result(op.outputs[0], own)], op.options)


def _builtin_only(rule: Rule) -> Rule:
    """For kernels that XNNPACK does not have."""

    def checked(op: Operator, walk: Integers) -> None:
        if not walk.is_last(op.outputs[0]):
            walk.wanted(op)
            raise StaysFloat("XNNPACK has no int8 kernel for it, and its float kernel is faster than the builtin int8 one")
        rule(op, walk)

    return checked


def _clamp(op: Operator, walk: Integers) -> None:
    """Nothing is left of a bound that the result's integers cannot exceed: a QUANTIZE saturates there by itself."""
    grid, source = walk.wanted(op), op.inputs[0]
    x = walk.integers(source)
    if within(grid, *CLAMPS[op.code]) and source is not None:
        walk.hold(op.outputs[0], walk.requantized(source, grid))
    elif op.code in INTEGER_CLAMPS and grid.same_as(x.quantization):
        _first_operand(op, walk)  # which `fuse_clamps` may make a part of the operator before
    elif op.code in INTEGER_CLAMPS:
        _builtin_only(_first_operand)(op, walk)
    else:
        raise StaysFloat("LiteRT has no int8 kernel for it")


def fuse_clamps(graph: Graph) -> None:
    """CONV_2D → RELU on one grid becomes CONV_2D with a fused RELU, in place: the same integers are left out."""
    work = Rewiring(graph)
    for op in graph.operators:
        source, result = op.inputs[0] if op.inputs else None, op.outputs[0]
        maker = work.made_by(source)
        if op.code not in INTEGER_CLAMPS or source is None or source.dtype != np.int8 or maker is None:
            continue
        alone = work.only_user(source) is op and maker.code in CLAMPING and maker.activation == "NONE"
        if alone and source.quantization is not None and source.quantization.same_as(result.quantization):
            maker.options["fusedActivationFunction"] = op.code
            work.remove(op)
            work.set_output(maker, result)
    graph.operators = [op for op in graph.operators if id(op) in work.alive]


def _average_pool(op: Operator, walk: Integers) -> None:
    """XNNPACK has no int8 AVERAGE_POOL_2D; over the whole map it is MEAN, otherwise a depthwise convolution with ones."""
    grid, x = walk.wanted(op), walk.integers(op.inputs[0])
    height, width, channels = op.options["filterHeight"], op.options["filterWidth"], x.shape[-1]
    if op.options["padding"] == "VALID" and x.shape[1:3] == (height, width) and op.activation == "NONE":
        axes = np.array([1, 2], np.int32)
        over = Tensor(f"{op.outputs[0].name}/axes", axes.shape, axes.dtype, axes)
        walk.emit("MEAN", [x, over], [walk.result(op.outputs[0], grid)], {"keepDims": True})
        return
    if op.options["padding"] != "VALID" or height * width > LARGEST_WINDOW or not isinstance(channels, int):
        _builtin_only(_same_grid)(op, walk)
        return
    ones = np.ones((1, height, width, channels), np.int8)
    share = Quantization(np.full(1, 1 / (height * width), np.float32), np.zeros(1, np.int64), 3)
    name = op.outputs[0].name
    weights = Tensor(f"{name}/ones", ones.shape, ones.dtype, ones, share)
    zeros = Tensor(f"{name}/bias", (channels,), np.dtype(np.float32), np.zeros(channels, np.float32))
    assert x.quantization is not None
    bias = _bias(zeros, x.quantization.scale * share.scale)
    options = {k: op.options[k] for k in ("padding", "strideH", "strideW", "fusedActivationFunction") if k in op.options}
    walk.emit("DEPTHWISE_CONV_2D", [x, weights, bias], [walk.result(op.outputs[0], grid)], options | {"depthMultiplier": 1})


def _operand(tensor: Tensor | None, walk: Integers) -> Tensor:
    """An operand as integers; a constant of one value is exact at its own scale."""
    found = walk.find(tensor)
    if found is None and tensor is not None and tensor.data is not None and tensor.data.size and np.ptp(tensor.data) == 0:
        value = float(tensor.data.reshape(-1)[0])
        scale = np.array([abs(value) / 127 or 1.0], np.float32)
        data = np.full_like(tensor.data, 127 * np.sign(value), np.int8)
        return Tensor(tensor.name, tensor.shape, data.dtype, data, Quantization(scale, np.zeros(1, np.int64)))
    return walk.integers(tensor) if found is None else found


def _scale(tensor: Tensor) -> float:
    assert tensor.quantization is not None
    return float(tensor.quantization.scale[0])


ARITHMETIC: dict[str, Rule] = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"), _linear),
    **dict.fromkeys(("ADD", "SUB"), _sum),
    **dict.fromkeys(("BATCH_MATMUL", "PRELU", "SQUARED_DIFFERENCE"), _builtin_only(_any_scales)),
    **dict.fromkeys(("GELU", "HARD_SWISH"), _builtin_only(_first_operand)),
    **dict.fromkeys(("LOG_SOFTMAX", "SOFTMAX"), _builtin_only(_fixed_result)),
    **dict.fromkeys(("LOGISTIC", "TANH"), _fixed_result),
    **dict.fromkeys(("ELU", "LEAKY_RELU", "MEAN", "SUM"), _first_operand),
    **dict.fromkeys(CLAMPS, _clamp),
    "AVERAGE_POOL_2D": _average_pool,
    "MUL": _any_scales,
    "RESIZE_BILINEAR": _same_grid,
}
"""LiteRT operator → its rule. What is not here has no int8 kernel, or none that computes what the float operator does."""
