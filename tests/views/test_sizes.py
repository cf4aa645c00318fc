import pytest

from jax_ssl.views import sizes


@pytest.mark.parametrize("stride", [8, 32])
def test_the_grid_of_a_map_is_found_whatever_its_shape_and_rounding(stride):
    for height in range(stride, 8 * stride, 5):
        for width in range(stride, 8 * stride, 7):
            up, down = ((-(-height // stride), -(-width // stride)), (height // stride, width // stride))
            assert sizes.grid_of(up[0] * up[1], (height, width)) == up
            assert sizes.grid_of(down[0] * down[1], (height, width)) == down


def test_a_size_is_a_side_or_a_pair():
    assert sizes.sides(32) == (32, 32) and sizes.sides([24, 32]) == (24, 32)
    assert sizes.size_of(32, 32) == 32 and sizes.size_of(24, 32) == (24, 32)
    assert sizes.written(32) == "32" and sizes.written([24, 32]) == "24x32"
    assert sizes.scaled_to(192, (14, 21)) == sizes.scaled_to(192, (224, 336)) == (128, 192)
    assert sizes.scaled_to(32, (4000, 1)) == (32, 1)
