from jax_ssl import config as configs
from jax_ssl.errors import UserError
from jax_ssl.plan import remedies


def report(**state):
    return {"topology": "v5e:4x4", "devices": 16, "slices": 1, "memory": {"usable": 100, "total": 200}, "state": state}


def test_a_large_state_is_split_first_and_large_activations_computed_again_first():
    config = configs.load("mae", ["--config.batch_size=4096"])
    first = lambda made: next(iter(remedies.candidates(config, made)))
    assert first(report(params=50, optimizer=10)) == ["--config.mesh.fsdp=8"]
    assert first(report(params=5, optimizer=10)) == ["--config.model.remat=full"]


def test_the_first_that_fits_is_told_and_a_refused_one_is_passed_over():
    config, said = configs.load("mae", ["--config.batch_size=4096"]), []

    def compile_one(changed):
        if changed.model.remat == "full":
            raise UserError("not for this method")
        return {"fits": changed.micro_batch > 0, "memory": {"total": 90}}

    load = lambda more: configs.load("mae", ["--config.batch_size=4096", *more])
    found = remedies.find(config, report(params=5), load, compile_one, said.append)
    assert found == {"overrides": ["--config.micro_batch=1024"], "memory": {"total": 90}}
    assert "not for this method" in said[0] and said[-1].endswith("micro_batch=1024: fits")
    assert remedies.find(config, report(params=5), load, lambda _: {"fits": False}, said.append) is None
