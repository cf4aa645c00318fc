"""What a ruler of the user's own returns is numbers, or is told."""

import pytest

from jax_ssl.errors import CodeError, UserError
from jax_ssl.study import rulers


def test_numbers_of_any_kind_are_taken():
    import numpy as np

    assert rulers.run(lambda *_: {"a": np.float32(0.5), "b": 1}, "mine.ruler", None, None, 0) == {"a": 0.5, "b": 1.0}


@pytest.mark.parametrize("returned", [None, 0.5, {}, {"a": "much"}, {"a": float("nan")}, [("a", 1)]])
def test_what_is_no_number_is_refused(returned):
    with pytest.raises(UserError, match="mine.ruler gave"):
        rulers.run(lambda *_: returned, "mine.ruler", None, None, 0)


def test_its_own_error_is_told_as_its_own():
    def ruler(encode, data, seed):
        raise KeyError("labels")

    with pytest.raises(CodeError, match="--task=mine.ruler failed: KeyError: 'labels'") as caught:
        rulers.run(ruler, "mine.ruler", None, None, 0)
    trace = caught.value.__cause__.__traceback__
    assert trace.tb_frame.f_code.co_name == "ruler"  # and nothing of ours before it
