"""A LiteRT graph as a flatbuffer, through the schema classes that ai-edge-litert ships."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import flatbuffers
import ml_dtypes
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.litert.graph import Graph, Operator, Quantization, Tensor
from edgekit.litert.quantized.versions import quantized_version

SIGNATURE = "serving_default"
BUFFER_ALIGNMENT = 16  # what the schema asks for with force_align; kernels read weights with aligned vector loads

TENSOR_TYPES = {
    np.dtype(name): getattr(schema.TensorType, name.upper())
    for name in "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64".split()
} | {np.dtype(ml_dtypes.int4): schema.TensorType.INT4}


def write(graph: Graph, description: str) -> bytes:
    """Serialize the graph and its subgraphs, with one signature that names the inputs and outputs.

    The structure is packed first, without the constants; they follow it, each copied once from where it is (often a transposed
    view of the source's weights), so that the peak of memory is the file and the source. Above 2 GB, where flatbuffer offsets
    end, the constants lie outside the flatbuffer (`Buffer.offset` and `size`), which needs LiteRT 1.0 or newer.
    """
    graphs = list(graph.with_subgraphs())
    constants = _Constants()
    codes: dict[tuple[str, int], int] = {}
    model = schema.ModelT()
    model.version = 3
    model.description = description
    names = _names(graphs)
    model.subgraphs = [_subgraph(g, graphs, names, constants, codes) for g in graphs]
    model.operatorCodes = [_operator_code(name, version) for name, version in codes]
    model.signatureDefs = [_signature(graph)]
    outside = constants.total > FLATBUFFER_LIMIT
    model.buffers = [schema.BufferT(), *(_placeholder(array, outside) for array in constants.arrays)]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return _with_constants(builder.Output(), constants.arrays, outside)


FLATBUFFER_LIMIT = (1 << 31) - (1 << 25)
CACHE_LINE = 64  # bytes
SMALL = 1 << 16  # bytes up to which constants of different shapes are compared


class _Constants:
    """The constants of a model in the order of their buffers; equal ones share one. Buffer 0 is the empty one."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self.total = 0
        self._by_sample: dict[tuple[int, int], list[int]] = {}

    def add(self, array: np.ndarray) -> int:
        """The buffer that holds an array (of whatever shape and dtype, bytes count)."""
        if array.size == 0:
            return 0
        flat = array.reshape(-1)[: 1 << 12] if array.flags.c_contiguous else array[tuple(slice(0, 8) for _ in array.shape)]
        key = array.nbytes, hash(np.ascontiguousarray(flat).tobytes())
        for index in self._by_sample.get(key, []):
            if _same_bytes(self.arrays[index - 1], array):
                return index
        self.arrays.append(array)
        self.total += array.nbytes + BUFFER_ALIGNMENT
        self._by_sample.setdefault(key, []).append(len(self.arrays))
        return len(self.arrays)


def _same_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are written alike: same bits (so that 0.0 and -0.0 differ and NaNs do not)."""
    if a.shape == b.shape and a.itemsize == b.itemsize:
        return np.array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))
    return a.nbytes <= SMALL and a.tobytes() == b.tobytes()


def _placeholder(array: np.ndarray, outside: bool) -> Any:
    """A buffer whose place in the file is not known yet."""
    made = schema.BufferT()
    if outside:
        made.offset, made.size = 2, array.nbytes  # 0 and 1 mean that there is no such buffer
    else:
        made.data = np.zeros(0, np.uint8)
    return made


def _with_constants(structure: bytearray, arrays: Sequence[np.ndarray], outside: bool) -> bytes:
    """The file: the structure, then the constants, each aligned, with the structure's references to them filled in."""
    place = len(structure)
    places = []
    for array in arrays:
        place = -(-(place + 4) // BUFFER_ALIGNMENT) * BUFFER_ALIGNMENT  # 4: a vector begins with its length
        places.append(place)
        place += array.nbytes
    buffers = schema.Model.GetRootAs(structure)
    for i, at in enumerate(places, 1):
        table = buffers.Buffers(i)._tab
        if outside:
            struct.pack_into("<Q", structure, table.Pos + table.Offset(6), at)
        else:
            field = table.Pos + table.Offset(4)
            struct.pack_into("<I", structure, field, at - 4 - field)
    # Both hand their memory on without a copy, and zeros that nobody has touched yet take neither memory nor time.
    file = io.BytesIO(bytes(place))
    with file.getbuffer() as view:
        view[: len(structure)] = structure
        for array, at in zip(arrays, places, strict=True):
            if not outside:
                view[at - 4 : at] = struct.pack("<I", array.nbytes)
            _put(np.frombuffer(view, array.dtype, array.size, at).reshape(array.shape), array)
    return file.getvalue()


def _put(target: np.ndarray, array: np.ndarray) -> None:
    """Copy an array; a transposed matrix in strips of one cache line, which takes a third of the time."""
    if array.ndim != 2 or array.flags.c_contiguous:
        target[...] = array
        return
    strip = CACHE_LINE // array.itemsize
    for start in range(0, array.shape[1], strip):
        target[:, start : start + strip] = array[:, start : start + strip]


def _subgraph(
    graph: Graph, graphs: Sequence[Graph], names: dict[Tensor, str], constants: _Constants, codes: dict[tuple[str, int], int]
) -> Any:
    tensors = graph.tensors()
    index = {tensor: i for i, tensor in enumerate(tensors)}
    made = schema.SubGraphT()
    made.name = graph.name
    made.tensors = [_tensor(tensor, names[tensor], constants, index) for tensor in tensors]
    made.inputs = np.array([index[t] for t in graph.inputs], np.int32)
    made.outputs = np.array([index[t] for t in graph.outputs], np.int32)
    made.operators = [_operator(op, index, graphs, codes) for op in graph.operators]
    return made


def _names(graphs: Sequence[Graph]) -> dict[Tensor, str]:
    """One name per tensor in the whole file, as ai-edge-quantizer needs it: the model's inputs and outputs keep theirs."""
    names: dict[Tensor, str] = {}
    taken: set[str] = set()
    for tensor in [*graphs[0].inputs, *graphs[0].outputs, *(t for graph in graphs for t in graph.tensors())]:
        if tensor in names:
            continue
        name, count = tensor.name, 1
        while name in taken:
            count += 1
            name = f"{tensor.name}_{count}"
        names[tensor] = name
        taken.add(name)
    return names


def _tensor(tensor: Tensor, name: str, constants: _Constants, index: dict[Tensor, int]) -> Any:
    made = schema.TensorT()
    made.name = name
    made.type = TENSOR_TYPES[tensor.dtype]
    made.shape = np.array([d if isinstance(d, int) else 1 for d in tensor.shape], np.int32)
    if not tensor.is_static:
        made.shapeSignature = np.array([d if isinstance(d, int) else -1 for d in tensor.shape], np.int32)
    made.hasRank = True
    made.buffer = 0 if tensor.data is None else constants.add(tensor.data)
    if tensor.quantization is not None and tensor.dtype.kind in "iu":
        made.quantization = _quantization(tensor.quantization)
    if tensor.block_scales is not None:
        made.quantization = _blockwise(tensor, index[tensor.block_scales])
    return made


def _quantization(quantization: Quantization) -> Any:
    made = schema.QuantizationParametersT()
    made.scale = quantization.scale.astype(np.float32)
    made.zeroPoint = quantization.zero_point.astype(np.int64)
    made.quantizedDimension = 0 if quantization.is_per_tensor else quantization.axis
    return made


def _blockwise(tensor: Tensor, scales: int) -> Any:
    assert tensor.block_scales is not None
    made = schema.QuantizationParametersT()
    made.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    made.details = schema.BlockwiseQuantizationT()
    made.details.scales = scales
    made.details.zeroPoints = -1
    made.details.blockSize = int(tensor.shape[1]) // int(tensor.block_scales.shape[1])
    made.quantizedDimension = 0
    return made


def _operator(op: Operator, index: dict[Tensor, int], graphs: Sequence[Graph], codes: dict[tuple[str, int], int]) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex = codes.setdefault((op.code, operator_version(op)), len(codes))
    made.inputs = np.array([-1 if t is None else index[t] for t in op.inputs], np.int32)
    made.outputs = np.array([index[t] for t in op.outputs], np.int32)
    table = OPTIONS.get(op.code)
    if table is not None:
        options = getattr(schema, table + "T")()
        for name, value in op.options.items():
            if not hasattr(options, name):
                raise AttributeError(f"{table} has no field {name}")
            setattr(options, name, _option(name, value, graphs))
        made.builtinOptionsType = getattr(schema.BuiltinOptions, table)
        made.builtinOptions = options
    return made


def _option(name: str, value: Any, graphs: Sequence[Graph]) -> Any:
    if isinstance(value, Graph):
        return next(i for i, g in enumerate(graphs) if g is value)
    if isinstance(value, np.dtype):
        return TENSOR_TYPES[value]
    if isinstance(value, str):
        return getattr(_ENUMS[name], value)
    return value


def _operator_code(name: str, version: int) -> Any:
    made = schema.OperatorCodeT()
    made.builtinCode = getattr(schema.BuiltinOperator, name)
    made.deprecatedBuiltinCode = min(made.builtinCode, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    made.version = version
    return made


def _signature(graph: Graph) -> Any:
    index = {tensor: i for i, tensor in enumerate(graph.tensors())}
    made = schema.SignatureDefT()
    made.signatureKey = SIGNATURE
    made.subgraphIndex = 0
    made.inputs = [_tensor_map(t, index) for t in graph.inputs]
    made.outputs = [_tensor_map(t, index) for t in graph.outputs]
    return made


def _tensor_map(tensor: Tensor, index: dict[Tensor, int]) -> Any:
    made = schema.TensorMapT()
    made.name = tensor.name
    made.tensorIndex = index[tensor]
    return made


def operator_version(op: Operator) -> int:
    """The lowest version of an operator that does what is asked of it, so that old runtimes refuse what they cannot do.

    After tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc.
    """
    return max(_plain_version(op), quantized_version(op))


def _plain_version(op: Operator) -> int:
    """For the float and integer forms."""
    types = [t.dtype.name for t in op.inputs if t is not None]
    first = types[0] if types else ""
    options = op.options
    match op.code:
        case "EMBEDDING_LOOKUP":
            return 4 if types[1] == "int4" else 3
        case "DEPTHWISE_CONV_2D":
            return 2 if options.get("dilationWFactor", 1) > 1 or options.get("dilationHFactor", 1) > 1 else 1
        case "TRANSPOSE_CONV":
            return 4 if op.activation != "NONE" else 3 if len(op.inputs) > 3 and op.inputs[3] is not None else 1
        case "FULLY_CONNECTED":
            bias = op.inputs[2] if len(op.inputs) > 2 else None
            return 13 if "int4" in types else 6 if bias is None else 5 if options.get("keepNumDims") else 1
        case "RESIZE_BILINEAR" | "RESIZE_NEAREST_NEIGHBOR":
            return 3 if options.get("halfPixelCenters") else 1
        case "STRIDED_SLICE":
            return 4 if len(op.inputs[0].shape) > 4 else 1  # type: ignore[union-attr]
        case "GATHER":
            return 5 if options.get("batchDims", 0) else 1
        case "BROADCAST_TO":
            return 2
        case "ADD" | "SUB":
            rank = max((t.rank for t in op.inputs if t is not None), default=0)
            return (4 if op.code == "ADD" else 5) if first == "int64" else 3 if op.code == "SUB" and rank > 4 else 1
        case "MUL":
            return 6 if first in ("int64", "complex64") else 1
        case "TRANSPOSE":
            return 4 if (op.inputs[0] is not None and op.inputs[0].rank > 4) else 1
        case "DEQUANTIZE":
            return 3 if first == "float16" else 1
        case _:
            return 1


_ENUMS: dict[str, Any] = {
    "padding": schema.Padding,
    "fusedActivationFunction": schema.ActivationFunctionType,
    "mode": schema.MirrorPadMode,
    "weightsFormat": schema.FullyConnectedOptionsWeightsFormat,
}

OPTIONS: dict[str, str] = {
    "ABS": "AbsOptions",
    "ADD": "AddOptions",
    "ADD_N": "AddNOptions",
    "ARG_MAX": "ArgMaxOptions",
    "ARG_MIN": "ArgMinOptions",
    "ATAN2": "ATan2Options",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "BATCH_TO_SPACE_ND": "BatchToSpaceNDOptions",
    "BITCAST": "BitcastOptions",
    "BITWISE_XOR": "BitwiseXorOptions",
    "BROADCAST_TO": "BroadcastToOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "CONV_3D": "Conv3DOptions",
    "CONV_3D_TRANSPOSE": "Conv3DOptions",
    "COS": "CosOptions",
    "CUMSUM": "CumsumOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "DIV": "DivOptions",
    "DYNAMIC_UPDATE_SLICE": "DynamicUpdateSliceOptions",
    "EQUAL": "EqualOptions",
    "EXP": "ExpOptions",
    "EXPAND_DIMS": "ExpandDimsOptions",
    "FILL": "FillOptions",
    "FLOOR_DIV": "FloorDivOptions",
    "FLOOR_MOD": "FloorModOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GATHER_ND": "GatherNdOptions",
    "GELU": "GeluOptions",
    "GREATER": "GreaterOptions",
    "GREATER_EQUAL": "GreaterEqualOptions",
    "HARD_SWISH": "HardSwishOptions",
    "IF": "IfOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "LESS": "LessOptions",
    "LESS_EQUAL": "LessEqualOptions",
    "LOCAL_RESPONSE_NORMALIZATION": "LocalResponseNormalizationOptions",
    "LOGICAL_AND": "LogicalAndOptions",
    "LOGICAL_NOT": "LogicalNotOptions",
    "LOGICAL_OR": "LogicalOrOptions",
    "LOG_SOFTMAX": "LogSoftmaxOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MIRROR_PAD": "MirrorPadOptions",
    "MUL": "MulOptions",
    "NEG": "NegOptions",
    "NON_MAX_SUPPRESSION_V5": "NonMaxSuppressionV5Options",
    "NOT_EQUAL": "NotEqualOptions",
    "ONE_HOT": "OneHotOptions",
    "PACK": "PackOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "POW": "PowOptions",
    "QUANTIZE": "QuantizeOptions",
    "RANGE": "RangeOptions",
    "REDUCE_ALL": "ReducerOptions",
    "REDUCE_ANY": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "REVERSE_SEQUENCE": "ReverseSequenceOptions",
    "REVERSE_V2": "ReverseV2Options",
    "RIGHT_SHIFT": "RightShiftOptions",
    "SCATTER_ND": "ScatterNdOptions",
    "SELECT": "SelectOptions",
    "SELECT_V2": "SelectV2Options",
    "SHAPE": "ShapeOptions",
    "SIGN": "SignOptions",
    "SLICE": "SliceOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "SPLIT": "SplitOptions",
    "SPLIT_V": "SplitVOptions",
    "SQUARE": "SquareOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
    "SQUEEZE": "SqueezeOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "SUM": "ReducerOptions",
    "TILE": "TileOptions",
    "TOPK_V2": "TopKV2Options",
    "TRANSPOSE": "TransposeOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
    "UNPACK": "UnpackOptions",
    "WHERE": "WhereOptions",
    "WHILE": "WhileOptions",
    "ZEROS_LIKE": "ZerosLikeOptions",
}
"""The options table of each operator that has one."""
