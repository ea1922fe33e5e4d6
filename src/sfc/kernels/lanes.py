"""A few float32 numbers side by side as one value in numba code: one vector register, explicitly.

Left to itself the compiler does not vectorise loops over a handful of labels inside gathers. The width of a vector is
the length of a tuple, which numba knows when it compiles; its values do not matter.

numba's cache notices changes of the file that a kernel is in, not of this one: after a change here, `make clean`.
"""

# numba calls these functions by position: they must take arguments that they have no use for.
# ruff: noqa: ARG001, ARG005

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, register_model

intrinsic: Any = extending.intrinsic
"""Untyped: callers do not pass the typing context, as numba's annotation says they would."""
FLOAT, INT = ir.FloatType(), ir.IntType(32)
EXP_LOWEST = -80.0
"""exp is 0 below: results near the smallest float32 make products denormal, a hundred times slower."""


class Lanes(types.Type):
    """Numba type of `width` float32 numbers."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Lanes({width})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, ir.VectorType(FLOAT, lanes.width))


def _call(builder: Any, name: str, arguments: list[Any], result: Any = None, **options: Any) -> Any:
    """Calls the LLVM intrinsic `name` on vectors of the last argument's type."""
    vector = arguments[-1].type
    signature = ir.FunctionType(result or vector, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v{vector.count}f32")
    return builder.call(function, arguments, **options)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, width: int) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), ir.VectorType(FLOAT, width).as_pointer())


def _repeat(builder: Any, number: Any, width: int) -> Any:
    undefined = ir.Constant(ir.VectorType(FLOAT, width), ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT, width), [0] * width))


@intrinsic
def load(typing_context: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Reads array[index : index + len(lanes)] of a contiguous float32 array."""
    width = len(lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(context, builder, signature.args[0], arguments[0], arguments[1], width)
        return builder.load(pointer, align=4)

    return Lanes(width)(array, types.intp, lanes), generate


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Writes lanes where `load` reads them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(context, builder, signature.args[0], arguments[0], arguments[1], value.width)
        builder.store(arguments[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def fill(typing_context: Any, number: Any, lanes: Any) -> Any:
    """Puts a number into each of len(lanes) lanes."""
    width = len(lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _repeat(builder, arguments[0], width)

    return Lanes(width)(types.float32, lanes), generate


@intrinsic
def multiply_add(typing_context: Any, factor: Any, value: Any, addend: Any) -> Any:
    """Computes factor · value + addend, the factor being a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "fma", [_repeat(builder, arguments[0], value.width), arguments[1], arguments[2]])

    return value(types.float32, value, value), generate


@intrinsic
def add(typing_context: Any, left: Any, right: Any) -> Any:
    """Adds lane by lane."""
    return left(left, left), lambda context, builder, signature, arguments: builder.fadd(*arguments)


@intrinsic
def multiply(typing_context: Any, left: Any, right: Any) -> Any:
    """Multiplies lane by lane."""
    return left(left, left), lambda context, builder, signature, arguments: builder.fmul(*arguments)


@intrinsic
def accumulate(typing_context: Any, total: Any, left: Any, right: Any) -> Any:
    """Computes total + left · right lane by lane, rounded once where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "fmuladd", [arguments[1], arguments[2], arguments[0]])

    return total(total, total, total), generate


@intrinsic
def maximum(typing_context: Any, left: Any, right: Any) -> Any:
    """Keeps the larger value of each lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return left(left, left), generate


@intrinsic
def largest(typing_context: Any, value: Any) -> Any:
    """Finds the largest lane, as a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "vector.reduce.fmax", [arguments[0]], FLOAT, fastmath=("nnan", "nsz"))

    return types.float32(value), generate


@intrinsic
def total(typing_context: Any, value: Any) -> Any:
    """Sums the lanes, to a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "vector.reduce.fadd", [FLOAT(0.0), arguments[0]], FLOAT, fastmath=("reassoc",))

    return types.float32(value), generate


@intrinsic
def exp(typing_context: Any, value: Any) -> Any:
    """Exponential of values of at most 0, within 2e-7 of the result.

    exp(x) = 2^k · exp(r), k the integer nearest x / log 2; exp(r) is its Taylor polynomial of degree 7 on
    |r| <= log(2) / 2, and k is added to the exponent bits. log 2 is subtracted in two parts (Cody and Waite), the
    first short enough that k times it is exact.
    """
    width = value.width

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, integers = arguments[0].type, ir.VectorType(INT, width)

        def constant(number: float) -> Any:
            return ir.Constant(vector, [FLOAT(number)] * width)

        inside = builder.fcmp_ordered(">", arguments[0], constant(EXP_LOWEST))
        x = builder.select(inside, arguments[0], constant(EXP_LOWEST))
        k = _call(builder, "rint", [builder.fmul(x, constant(1.4426950408889634))])
        r = _call(builder, "fma", [k, constant(-0.693359375), x])
        r = _call(builder, "fma", [k, constant(2.1219444005469057e-4), r])
        power = constant(1 / 5040)
        for coefficient in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
            power = _call(builder, "fma", [power, r, constant(coefficient)])
        exponent = builder.shl(builder.fptosi(k, integers), ir.Constant(integers, [23] * width))
        scaled = builder.bitcast(builder.add(builder.bitcast(power, integers), exponent), vector)
        return builder.select(inside, scaled, constant(0.0))

    return value(value), generate
