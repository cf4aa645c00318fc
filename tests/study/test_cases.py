"""The cases of one command belong together, and those of another do not."""

from jax_ssl.data.split import open_splits
from jax_ssl.study import cases, measure
from tests.small import small


def test_networks_of_one_command_share_what_rulers_keep():
    settings = small("dino")
    networks = measure.Networks(settings, "a run", "a run", 3, ("student", "teacher"), {})
    splits = open_splits(settings)
    one, other = ([row.case.shared for row in cases.rows_of(networks, splits)] for _ in range(2))
    assert one[0] is one[1] is not other[0] and len(other) == 2
