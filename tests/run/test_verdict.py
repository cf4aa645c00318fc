"""What is known of checkpoints survives a restart, and what is torn or of another history is forgotten."""

from jax_ssl.run import verdict
from jax_ssl.run.verdict import Verdict


def test_it_comes_back_as_it_was(tmp_path):
    assert verdict.read(tmp_path) == Verdict()
    there = Verdict(finite=12, ruined=True, scores={4: 0.5, 8: 0.25})
    verdict.write(tmp_path, there)
    assert verdict.read(tmp_path) == there
    for torn in ('{"finite": 1', "[]", '{"finite": 1, "ruined": false, "scores": 3}', ""):
        (tmp_path / verdict.NAME).write_text(torn)
        assert verdict.read(tmp_path) == Verdict()


def test_only_a_later_finite_step_proves():
    known = Verdict(finite=12)
    assert [known.is_proven(step) for step in (11, 12, 13)] == [True, False, False]
    assert known.objection(13) is None, "a run that was stopped in between has no ruined step"
    known.ruined = True
    assert known.objection(11) is None and "finite" in known.objection(12)


def test_a_run_that_goes_back_forgets_what_came_after():
    known = Verdict(12, True, {4: 0.5, 8: 0.25, 12: 0.1})
    assert known.up_to(8) == Verdict(9, False, {4: 0.5, 8: 0.25})
    assert known.up_to(20) == Verdict(12, False, {4: 0.5, 8: 0.25, 12: 0.1})
    assert known.up_to(None) == Verdict()
