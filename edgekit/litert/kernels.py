"""Which dtypes the builtin kernels take.

Found by running, with XNNPACK and without (scripts/probe_kernels.py). Plain tensors only: the quantized forms of int8, uint8 and
int16 are other kernels under the same names, which is why ADD has no int8 here. An operator that is not in the table takes
whatever its lowering gives it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """The dtypes of a kernel's data, and which of its inputs and outputs those are.

    Args:
        dtypes: numpy names.
        inputs, outputs: Places of the operands that have the data's dtype; None for all of them.
        ordered: Whether the result depends on the order of values, so that uint64 cannot pass as int64.
    """

    dtypes: frozenset[str]
    inputs: tuple[int, ...] | None
    outputs: tuple[int, ...] | None
    ordered: bool = True


_EVERY = "float32 float16 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool"
_FLOAT = "float32"

KERNELS: dict[str, Kernel] = {}


def _add(
    codes: str,
    dtypes: str,
    inputs: tuple[int, ...] | None = (0,),
    outputs: tuple[int, ...] | None = None,
    *,
    ordered: bool = True,
) -> None:
    for code in codes.split():
        KERNELS[code] = Kernel(frozenset(dtypes.split()), inputs, outputs, ordered)


_add("CEIL COS ELU EXP FLOOR GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1", _FLOAT)
_add("ROUND RSQRT SIN SQRT SQUARE TANH SOFTMAX LOG_SOFTMAX PRELU L2_NORMALIZATION", _FLOAT)
_add("AVERAGE_POOL_2D MAX_POOL_2D LOCAL_RESPONSE_NORMALIZATION RESIZE_BILINEAR", _FLOAT)
_add("ABS", "float32 int16 int32")
_add("NEG", "float32 int8 int16 int32 int64", ordered=False)
_add("SIGN", "float32 float64 int32")
_add("LOGICAL_NOT", "bool")
_add("LOGICAL_AND LOGICAL_OR", "bool", None)
_add("ADD", "float32 int16 int32 int64", None, ordered=False)
_add("SUB", "float32 int32 int64", None, ordered=False)
_add("MUL", "float32 int16 int32 int64 uint32", None, ordered=False)
_add("DIV POW SQUARED_DIFFERENCE", "float32 int32", None)
_add("FLOOR_DIV", "float32 int8 int16 int32", None)
_add("FLOOR_MOD", "float32 int8 int16 int32 int64", None)
_add("MAXIMUM MINIMUM", "float32 int8 int16 int32 int64 uint8", None)
_add("EQUAL", "float32 int16 int32 int64 bool", None, (), ordered=False)
_add("NOT_EQUAL", "float32 int32 int64 bool", None, (), ordered=False)
_add("GREATER GREATER_EQUAL LESS LESS_EQUAL", "float32 int16 int32 int64", None, ())
_add("BITWISE_XOR RIGHT_SHIFT", "int8 int16 int32 uint8 uint16 uint32", None, ordered=False)
_add("SELECT_V2", _EVERY, (1, 2))
_add("SUM", "float32 int32 int64", ordered=False)
_add("MEAN", _FLOAT)
_add("REDUCE_MAX REDUCE_MIN", "float32 int8 int16 int32 int64 uint8")
_add("REDUCE_PROD", "float32 int32 int64", ordered=False)
_add("REDUCE_ANY REDUCE_ALL", "bool")
_add("CUMSUM", "float32 int32 int64", ordered=False)
_add("ARG_MAX ARG_MIN", "float32 int8 int32 uint8", outputs=())
_add("TOPK_V2", "float32 int8 int16 int32 int64 uint8", outputs=(0,))
_add("RESHAPE TRANSPOSE SLICE STRIDED_SLICE SQUEEZE EXPAND_DIMS MIRROR_PAD TILE", _EVERY, ordered=False)
_add("CONCATENATION", "float32 float16 int8 int16 int32 int64 uint8 uint32 bool", None, ordered=False)
_add("PACK", "float32 int8 int16 int32 int64 uint8 uint32", None, ordered=False)
_add("UNPACK", "float32 float16 int8 int16 int32 uint8 bool", ordered=False)
_add("SPLIT", "float32 int8 int16 int32 int64 uint8", (1,), ordered=False)
_add("SPLIT_V", "float32 int8 int16 int32 int64 uint8", ordered=False)
_add("PAD", "float32 float16 int8 int16 int32 int64 uint8 bool", ordered=False)
_add("PADV2", "float32 int8 int16 int32 int64 uint8", (0, 2), ordered=False)
_add("BROADCAST_TO", _EVERY, ordered=False)
_add("GATHER GATHER_ND REVERSE_V2", "float32 float16 int8 int16 int32 int64 uint8 bool", ordered=False)
_add("SCATTER_ND", "float32 int8 int32 int64 uint8 bool", (1,), ordered=False)
_add("REVERSE_SEQUENCE", "float32 int16 int32 int64 uint8", ordered=False)
_add("FILL", _EVERY, (1,), ordered=False)
_add("ONE_HOT", "float32 int8 int16 int32 int64 uint8 bool", (2, 3), ordered=False)
_add("BATCH_MATMUL", _FLOAT, (0, 1))
_add("DEPTH_TO_SPACE SPACE_TO_DEPTH", "float32 int8 int32 int64 uint8", ordered=False)
_add("RESIZE_NEAREST_NEIGHBOR", "float32 int32", ordered=False)
_add("RANGE", "float32 int32 int64", None)
_add("WHERE", "float32 int8 int32 int64 uint8 uint32 bool", outputs=())
