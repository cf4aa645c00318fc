import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding

from jax_ssl import sharding
from jax_ssl.plan import collectives, hlo

LOOP = """HloModule jit_f, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %all-reduce.1 = f32[8]{0:T(256)} all-reduce(%x), channel_id=3, replica_groups={{0,1}}, to_apply=%add
}

%condition (p: (s32[], f32[8])) -> pred[] {
  %constant.5 = s32[]{:T(256)} constant(24)
  ROOT %lt = pred[]{:T(1024)} compare(%i, %constant.5), direction=LT, metadata={op_name="lt"}
}

%async_collective_fusion.1 (p: f32[8]) -> f32[16] {
  %all-gather.2 = f32[16]{0} all-gather(%p), channel_id=7, dimensions={0}
}

%async_done.1 (p: f32[8]) -> f32[16] {
  %all-gather.3 = f32[16]{0} all-gather(%p), channel_id=7, dimensions={0}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %while.1 = (s32[]{:T(256)}, f32[8]{0}) while(%tuple), condition=%condition, body=%body
  %fusion.1 = f32[16]{0} fusion(%p), kind=kCustom, calls=%async_collective_fusion.1
  %fusion.2 = f32[16]{0} fusion(%p), kind=kCustom, calls=%async_done.1
  %collective-permute-start.1 = (bf16[4]{0}, bf16[4]{0}, u32[]) collective-permute-start(%y), channel_id=9
  %collective-permute-done.1 = bf16[4]{0} collective-permute-done(%collective-permute-start.1)
}
"""


def compiled(function, *shapes_and_specs):
    mesh = sharding.make_mesh()
    shapes = [jax.ShapeDtypeStruct(s, "float32", sharding=NamedSharding(mesh, p)) for s, p in shapes_and_specs]
    return jax.jit(function).lower(*shapes).compile().as_text()


def test_text_of_the_tpu_compiler():
    # Loops run as often as their condition says. One channel in two fusions is one collective, and so is start and end.
    assert collectives.census(LOOP) == {
        "all-gather": {"count": 1, "bytes": 64},
        "all-reduce": {"count": 24, "bytes": 24 * 32},
        "collective-permute": {"count": 1, "bytes": 8},
    }


@pytest.mark.parametrize(
    ("types", "count"),
    [("f32[8,128]{1,0:T(8,128)}", 4096), ("(bf16[3]{0}, pred[5], s32[])", 15), ("f8e4m3fn[7]", 7), ("token[]", 0)],
)
def test_bytes_of_types(types, count):
    assert hlo.array_bytes(types) == count


def test_a_sum_over_devices_is_one_all_reduce():
    text = compiled(lambda x: x.sum(0), ((16, 128), sharding.BATCH))
    assert collectives.census(text) == {"all-reduce": {"count": 1, "bytes": 128 * 4}}


def test_no_collectives_where_rows_stay_apart():
    assert collectives.census(compiled(lambda x: jnp.tanh(x).sum(1), ((16, 128), sharding.BATCH))) == {}


def test_collectives_of_a_scan_count_as_often_as_it_runs():
    layers = lambda w, x: lax.scan(lambda x, w: (x - (x @ w).mean(0), None), x, w)[0]
    text = compiled(layers, ((6, 128, 128), jax.P()), ((16, 128), sharding.BATCH))
    assert collectives.census(text) == {"all-reduce": {"count": 6, "bytes": 6 * 128 * 4}}


@pytest.mark.parametrize(
    ("groups", "over"),
    [
        ("replica_groups={{0,1},{2,3}}", ["fsdp"]),
        ("replica_groups={{0,2,4,6},{1,3,5,7}}", ["slices", "data"]),
        ("replica_groups=[2,4]<=[8]", ["data", "fsdp"]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", ["slices"]),
        ("replica_groups={}", ["slices", "data", "fsdp"]),
        ("source_target_pairs={{0,2},{2,0}}", ["data"]),
    ],
)
def test_the_axes_that_meet_are_read_from_the_groups(groups, over):
    line = f"%all-reduce.1 = f32[8] all-reduce(%x), channel_id=3, {groups}, to_apply=%add"
    assert collectives.mesh_axes(line, {"slices": 2, "data": 2, "fsdp": 2}) == over


def test_an_asynchronous_pair_has_the_groups_of_its_start():
    text = """ENTRY %main (p: f32[8]) -> f32[8] {
  %all-gather-start.1 = (f32[4], f32[8]) all-gather-start(%p), channel_id=1, replica_groups={{0,1},{2,3}}
  %all-gather-done.1 = f32[8] all-gather-done(%all-gather-start.1)
}
"""
    found = collectives.census(text, {"data": 2, "fsdp": 2})
    assert found == {"all-gather over fsdp": {"count": 1, "bytes": 32}}


def test_slices_exchange_through_their_hosts():
    attributes = '_xla_host_transfer_rendezvous="all-reduce.59_0",_xla_megascale_transfer_type="ALL_REDUCE"'
    types = "(f32[2,128]{1,0:T(1,128)}, u32[], token[])"
    recv = f"  %recv = {types} recv(%after-all), channel_id=3, frontend_attributes={{{attributes}}}"
    text = f"ENTRY %main (p: f32[8]) -> f32[8] {{\n{recv}\n}}\n"
    assert collectives.census(text, {"slices": 2, "data": 4}) == {"all-reduce over slices": {"count": 1, "bytes": 1024}}
