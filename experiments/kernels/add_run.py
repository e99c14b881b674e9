"""The sum of w_j v_j over a run of keys, in registers. numba keeps no array there, so LLVM is told what to do.

Its vectors are those of any machine: where a machine has shorter ones, LLVM splits them.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 16  # values added at once
SLAB = 8  # vectors of LANES values whose sums stay in registers
AHEAD = 8  # keys whose values are fetched while those before them are added


@intrinsic
def add_run(typing_context, packed, count, values, sums, lanes):
    """Add w_j v_j over `count` packed keys to float64 sums [V]; keys, values [N, V] and sums are given by address.

    A packed key has its weight's bits in the upper half, and the complement of its index in the lower. AHEAD keys more
    are read than are added. V is a multiple of LANES, and `lanes` a tuple of V / LANES zeros.
    """
    vectors = len(lanes)
    i64, i32, i8 = ir.IntType(64), ir.IntType(32), ir.IntType(8)
    f32, f64 = ir.FloatType(), ir.DoubleType()
    lane32, lane64 = ir.VectorType(f32, LANES), ir.VectorType(f64, LANES)
    every = ir.Constant(ir.VectorType(i32, LANES), [0] * LANES)

    def generate(context, builder, signature, arguments):
        packed_address, number, value_address, sum_address, _ = arguments
        packed_at = builder.inttoptr(packed_address, i64.as_pointer())
        value_at = builder.inttoptr(value_address, f32.as_pointer())
        sum_at = builder.inttoptr(sum_address, f64.as_pointer())
        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(lane32, [lane32] * 3), f"llvm.fmuladd.v{LANES}f32"
        )
        prefetch = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [i8.as_pointer(), i32, i32, i32]), "llvm.prefetch.p0i8"
        )
        zero = ir.Constant(lane32, [0.0] * LANES)

        def add_key(index, first, total):
            later, packed = (
                builder.load(builder.gep(packed_at, [at])) for at in (builder.add(index, i64(AHEAD)), index)
            )
            later_key, key = (
                builder.mul(builder.and_(builder.not_(x), i64(0xFFFFFFFF)), i64(vectors * LANES))
                for x in (later, packed)
            )
            for v in range(len(total)):
                place = builder.gep(value_at, [builder.add(later_key, i64((first + v) * LANES))])
                builder.call(prefetch, [builder.bitcast(place, i8.as_pointer()), i32(0), i32(3), i32(1)])
            weight = builder.bitcast(builder.trunc(builder.lshr(packed, i64(32)), i32), f32)
            one = builder.insert_element(ir.Constant(lane32, ir.Undefined), weight, i32(0))
            weight_l = builder.shuffle_vector(one, ir.Constant(lane32, ir.Undefined), every)
            result = []
            for v, before in enumerate(total):
                place = builder.gep(value_at, [builder.add(key, i64((first + v) * LANES))])
                value_l = builder.load(builder.bitcast(place, lane32.as_pointer()), align=4)
                result.append(builder.call(multiply_add, [weight_l, value_l, before]))
            return result

        def loop(start, stop, step, first, totals):
            """Add keys start, start + step, ... < stop, each into `step` sets of sums."""
            before = builder.block
            test, body, after = (builder.append_basic_block(name) for name in ("test", "body", "after"))
            builder.branch(test)
            builder.position_at_end(test)
            index = builder.phi(i64)
            index.add_incoming(start, before)
            sums_now = [[builder.phi(lane32) for _ in total] for total in totals]
            for now, initial in zip(sums_now, totals, strict=True):
                for phi, value in zip(now, initial, strict=True):
                    phi.add_incoming(value, before)
            builder.cbranch(builder.icmp_signed("<", index, stop), body, after)
            builder.position_at_end(body)
            added = [add_key(builder.add(index, i64(u)), first, now) for u, now in enumerate(sums_now)]
            following = builder.add(index, i64(step))
            end = builder.block
            builder.branch(test)
            index.add_incoming(following, end)
            for now, results in zip(sums_now, added, strict=True):
                for phi, value in zip(now, results, strict=True):
                    phi.add_incoming(value, end)
            builder.position_at_end(after)
            return index, sums_now

        for first in range(0, vectors, SLAB):
            width = min(SLAB, vectors - first)
            sets = max(1, SLAB // width)  # several, as each sum waits for itself
            whole = builder.sub(number, builder.srem(number, i64(sets)))
            index, totals = loop(i64(0), whole, sets, first, [[zero] * width for _ in range(sets)])
            _, [result] = loop(index, number, 1, first, totals[:1])
            for other in totals[1:]:
                result = [builder.fadd(x, y) for x, y in zip(result, other, strict=True)]
            for v, total in enumerate(result):
                place = builder.bitcast(builder.gep(sum_at, [i64((first + v) * LANES)]), lane64.as_pointer())
                builder.store(builder.fadd(builder.load(place, align=8), builder.fpext(total, lane64)), place, align=8)
        return context.get_dummy_value()

    return types.void(packed, count, values, sums, lanes), generate
