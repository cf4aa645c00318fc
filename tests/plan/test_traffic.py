import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jax_ssl.plan import traffic

TPU = """HloModule jit_step, is_scheduled=true

%fused_slice (param_0: f32[24,128], param_1: s32[]) -> f32[1,128] {
  %param_0 = f32[24,128]{1,0:T(8,128)} parameter(0)
  %param_1 = s32[]{:T(128)} parameter(1)
  ROOT %taken = f32[1,128]{1,0:T(8,128)} dynamic-slice(%param_0, %param_1), dynamic_slice_sizes={1,128}
}

%fused_update (param_0.1: f32[24,128], param_1.1: f32[1,128], param_2.1: s32[]) -> f32[24,128] {
  %param_0.1 = f32[24,128]{1,0:T(8,128)} parameter(0)
  %param_1.1 = f32[1,128]{1,0:T(8,128)} parameter(1)
  %param_2.1 = s32[]{:T(128)} parameter(2)
  ROOT %put = f32[24,128]{1,0:T(8,128)} dynamic-update-slice(%param_0.1, %param_1.1, %param_2.1)
}

%fused_both (param_0.2: f32[24,128], param_1.2: f32[1,128], param_2.2: s32[]) -> (f32[24,128], f32[1,128]) {
  %param_0.2 = f32[24,128]{1,0:T(8,128)} parameter(0)
  %param_1.2 = f32[1,128]{1,0:T(8,128)} parameter(1)
  %param_2.2 = s32[]{:T(128)} parameter(2)
  %put.2 = f32[24,128]{1,0:T(8,128)} dynamic-update-slice(%param_0.2, %param_1.2, %param_2.2)
  ROOT %both = (f32[24,128]{1,0:T(8,128)}, f32[1,128]{1,0:T(8,128)}) tuple(%put.2, %param_1.2)
}

%body (p: (s32[], f32[24,128])) -> (s32[], f32[24,128]) {
  %p = (s32[], f32[24,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)S(1)} get-tuple-element(%p), index=0
  %stack = f32[24,128]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %fusion.1 = f32[1,128]{1,0:T(8,128)} fusion(%stack, %i), kind=kLoop, calls=%fused_slice
  %fusion.2 = f32[1,128]{1,0:T(8,128)S(1)} fusion(%stack, %i), kind=kLoop, calls=%fused_slice
  %fusion.3 = f32[24,128]{1,0:T(8,128)} fusion(%stack, %fusion.1, %i), kind=kLoop, calls=%fused_update
  %fusion.4 = (f32[24,128]{1,0:T(8,128)}, f32[1,128]{1,0:T(8,128)}) fusion(%stack, %fusion.1, %i), calls=%fused_both
  ROOT %tuple = (s32[], f32[24,128]{1,0:T(8,128)}) tuple(%i, %fusion.3)
}

%condition (p: (s32[], f32[24,128])) -> pred[] {
  %constant.5 = s32[]{:T(256)S(1)} constant(24)
  ROOT %lt = pred[]{:T(1024)S(1)} compare(%i, %constant.5), direction=LT
}

ENTRY %main (x: f32[24,128]) -> f32[24,128] {
  %x = f32[24,128]{1,0:T(8,128)} parameter(0)
  %while.1 = (s32[], f32[24,128]{1,0:T(8,128)}) while(%tuple.1), condition=%condition, body=%body
  %copy-start.1 = (f32[8]{0:T(128)S(1)}, f32[8]{0:T(128)}, u32[]{:S(2)}) copy-start(%small)
  %copy-done.1 = f32[8]{0:T(128)S(1)} copy-done(%copy-start.1)
}
"""


def test_a_loop_takes_its_slice_and_writes_what_changes():
    moves = list(traffic.instructions(TPU))
    moved = {item.name: item.bytes for item in moves}
    row = 128 * 4
    assert moved["fusion.1"] == 24 * 2 * row  # reads a row of the stack and writes it
    assert moved["fusion.2"] == 24 * row  # its result stays on the chip
    assert moved["fusion.3"] == 24 * 2 * row  # reads the new row, writes it in place
    assert moved["fusion.4"] == 24 * 3 * row  # and once more as a result of its own
    assert moved["copy-start.1"] == 32  # from memory to the chip: once
    assert traffic.total(moves) == sum(moved.values())
    assert traffic.heaviest(moves, 1) == [{"source": "fusion", "bytes": 24 * 8 * row, "times": 96}]


SET_ASIDE = """HloModule jit_step, is_scheduled=true

ENTRY %main (x: bf16[2,197,1152]) -> bf16[2,197,384] {
  %x = bf16[2,197,1152]{2,1,0:T(8,128)(2,1)} parameter(0)
  %stack = f32[12,64,128]{2,1,0:T(8,128)} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %attend = bf16[2,197,384]{2,1,0:T(8,128)(2,1)} custom-call(%x, %x, %x), custom_call_target="tpu_custom_call"
}
"""


def test_a_buffer_that_is_only_set_aside_costs_nothing_and_an_operand_given_thrice_counts_once():
    (moved,) = traffic.instructions(SET_ASIDE)
    assert moved.name == "attend" and moved.bytes == 2 * 197 * (1152 + 384) * 2


def compiled_of(function, *shapes):
    return jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes)).compile()


def moved_by(compiled):
    return traffic.total(traffic.instructions(compiled.as_text()))


def test_without_loops_it_is_near_the_compilers_own_count():
    compiled = compiled_of(lambda x, w: jnp.tanh(x @ w) @ w.T, (256, 512), (512, 128))
    assert moved_by(compiled) == pytest.approx(compiled.cost_analysis()["bytes accessed"], rel=0.3)


def test_a_scan_moves_its_weights_once_each():
    layers = lambda w, x: lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]
    weights, acts = 12 * 256 * 256 * 4, 12 * 8 * 256 * 4
    moved = moved_by(compiled_of(layers, (12, 256, 256), (8, 256)))
    assert weights < moved < 4 * weights + 8 * acts  # not twelve times all twelve
