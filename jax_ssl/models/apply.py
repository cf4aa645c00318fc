"""Flax variables, parted the way the training state wants them: parameters here, running statistics there."""


def init(net, rng, *args, **kwargs):
    """(params, stats): the trainable tree, and the mutable collections (batch statistics), empty without batch norm."""
    variables = dict(net.init(rng, *args, **kwargs))
    variables.pop("intermediates", None)
    return variables.pop("params"), variables


def train(net, params, stats, *args, rng=None, **kwargs):
    """Runs `net` in training mode. Returns (output, new stats). rng feeds drop path where there is any."""
    rngs = None if rng is None else {"drop_path": rng}
    return net.apply({"params": params, **stats}, *args, train=True, mutable=list(stats), rngs=rngs, **kwargs)
