import json

import pytest

from jax_ssl import config as configs
from jax_ssl.errors import UserError
from jax_ssl.plan import bound
from jax_ssl.plan.chips import CHIPS


def report(**changes):
    """As if compiled for 64 chips of a v5e: a millisecond of compute, two of memory."""
    chip = CHIPS["TPU v5 lite"]
    return dict(
        device_kind="TPU v5 lite", devices=64, slices=1, fsdp=1, batch_size=6400, total_steps=3_600_000,
        flops=64 * chip.peak * 1e-3, bytes=chip.bandwidth * 2e-3, collectives={},
    ) | changes  # fmt: skip


def test_the_slowest_part_decides():
    made = bound.bound(report())
    assert made["by"] == "memory" and made["step_seconds"] == pytest.approx(2e-3)
    assert made["utilisation"] == pytest.approx(0.5)
    assert made["images_per_second_per_chip"] == pytest.approx(100 / 2e-3)


@pytest.mark.parametrize(
    ("kind", "members", "sent"),
    [("all-reduce", 4, 2 * 0.75), ("all-gather", 4, 0.75), ("reduce-scatter", 4, 3.0), ("collective-permute", 4, 1.0),
     ("all-reduce", 1, 0.0), ("all-gather", 1, 0.0)],
)  # fmt: skip
def test_what_a_device_sends_at_least(kind, members, sent):
    assert bound.sent(kind, 100.0, members) == pytest.approx(100 * sent)


def test_what_crosses_slices_goes_through_the_hosts():
    within, between = ({f"all-reduce over {axis}": {"count": 1, "bytes": 1e9}} for axis in ("data", "slices"))
    chip = CHIPS["TPU v5 lite"]
    one = bound.bound(report(collectives=within))["seconds"]
    two = bound.bound(report(collectives=between, slices=2))["seconds"]
    assert one["interconnect"] == pytest.approx(2e9 * 63 / 64 / chip.interconnect) and one["data centre"] == 0
    # Four chips of a host send a gigabyte each.
    assert two["data centre"] == pytest.approx(4e9 / bound.DATA_CENTRE) and two["interconnect"] == 0


def test_a_host_that_augments_needs_more_cores():
    made = report()
    made["bound"] = bound.bound(made)
    needs = bound.host(made, configs.load("simclr"))
    assert needs["hosts"] == 16 and needs["images_per_second"] == pytest.approx(6400 / 2e-3 / 16)
    assert needs["cores_host"] > 2 * needs["cores_hybrid"] > 0 == needs["cores_device"]


def test_the_whole_run_has_a_price(tmp_path):
    made = report()
    made["bound"] = bound.bound(made)
    prices = bound.read_prices()
    asked = bound.cost(made, "v5e", prices)
    assert asked["hours"] == pytest.approx(2.0) and asked["chip_hours"] == pytest.approx(128.0)
    assert asked["money"] == pytest.approx(128 * prices["per_chip_hour"]["v5e"])
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"date": "today", "currency": "EUR", "per_chip_hour": {"v5p": 1.0}}))
    assert bound.cost(made, "v5e", bound.read_prices(str(mine)))["money"] is None
    mine.write_text("{}")
    with pytest.raises(UserError, match="price table"):
        bound.read_prices(str(mine))


def test_every_tpu_has_what_a_bound_needs():
    for kind, chip in CHIPS.items():
        assert min(chip.peak, chip.bandwidth, chip.interconnect) > 0
        assert chip.cores > 0 or "TPU" not in kind
