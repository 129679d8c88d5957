"""Biases of layers with fixed ranges, where the steps of a channel are too fine for them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from edgekit.quantize.tflite_parts import TfliteParts, content

# The most steps of a bias. int8: half of int32, the other half is for the products. int16x8: LiteRT scales sums of 48 bits
# (MultiplyByQuantizedMultiplier for int64).
_LARGEST = {np.dtype(np.int32): 2.0**30, np.dtype(np.int64): 2.0**46}


def with_exact_biases(source: TfliteParts, data: bytes) -> bytes:
    """The quantized file with the biases of `source`, the float file, where the quantizer has cut them off.

    A step of a bias is that of the input times that of the channel's weights. Where those are next to nothing (a channel that
    training has given up), the bias is more steps than int32 holds, and ai-edge-quantizer cuts it off there, in int64 as well.
    Such a channel gets larger steps: what its weights lose is nothing beside the bias. The bytes of others stay as they are.
    """
    from ai_edge_litert import schema_py_generated as schema

    written = bytearray(data)  # what follows are views of it
    model = schema.ModelT.InitFromPackedBuf(written, 0)
    types: dict[int, Any] = {schema.TensorType.INT32: np.dtype(np.int32), schema.TensorType.INT64: np.dtype(np.int64)}
    for graph in model.subgraphs:
        uses = Counter(graph.tensors[i].buffer for op in graph.operators for i in op.inputs if i >= 0)
        for op in graph.operators:
            if len(op.inputs) < 3 or min(op.inputs[1:3]) < 0:
                continue
            weights, bias = (graph.tensors[i] for i in op.inputs[1:3])
            exact, dtype = source.constant(bias.name.decode()), types.get(bias.type)
            held, kernel = (content(model.buffers[tensor.buffer], written) for tensor in (bias, weights))
            alone = uses[weights.buffer] == uses[bias.buffer] == 1
            if exact is not None and dtype is not None and held is not None and kernel is not None and alone:
                _correct(held.view(dtype), kernel.view(np.int8).reshape(weights.shape), exact, bias, weights)
    return bytes(written)


def _correct(held: np.ndarray, kernel: np.ndarray, exact: np.ndarray, bias: Any, weights: Any) -> None:
    scales, grids = bias.quantization.scale, weights.quantization.scale
    if scales is None or grids is None or len(scales) != len(grids) or len(scales) != exact.size:
        return
    steps = exact.astype(np.float64) / scales
    beyond = np.abs(steps) > min(_LARGEST[held.dtype], 2.0**31 - 1)
    if not beyond.any():
        return
    factors = np.exp2(np.ceil(np.log2(np.maximum(np.abs(steps) / _LARGEST[held.dtype], 1.0))))
    shape = [-1 if axis == weights.quantization.quantizedDimension else 1 for axis in range(kernel.ndim)]
    kernel[...] = np.rint(kernel / factors.reshape(shape))
    held[beyond] = np.rint(steps / factors)[beyond].astype(held.dtype)
    scales *= factors
    grids *= factors
