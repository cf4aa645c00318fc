"""Flax variables, parted the way the training state wants them: parameters here, running statistics there."""

import jax


def init(net, rng, *args, **kwargs):
    """(params, stats): the trainable tree, and the mutable collections (batch statistics), empty without batch norm."""
    variables = dict(net.init(rng, *args, **kwargs))
    variables.pop("intermediates", None)
    return variables.pop("params"), variables


def train(net, params, stats, *args, rng=None, **kwargs):
    """Runs `net` in training mode. Returns (output, new stats). rng feeds drop path where there is any."""
    rngs = None if rng is None else {"drop_path": rng}
    return net.apply({"params": params, **stats}, *args, train=True, mutable=list(stats), rngs=rngs, **kwargs)


def train_each(net, params, stats, batches, *, rng):
    """Runs `net` in training mode on several batches, each with batch statistics of its own: ([outputs], new stats)."""
    outputs = []
    for i, batch in enumerate(batches):
        output, stats = train(net, params, stats, batch, rng=jax.random.fold_in(rng, i))
        outputs.append(output)
    return outputs, stats


def init_with_teacher(student, teacher, rng, images):
    """(params, extra) of a student and a teacher: the trunk keeps the teacher's parameters, `extra` its statistics.

    A student without predictor layers has an empty `predictor`, so that an optimiser may name it.
    """
    params, stats = init(student, rng, images)
    return {"predictor": {}} | params, {"stats": stats, "teacher_stats": init(teacher, rng, images)[1]}


def train_with_teacher(student, teacher, params, state, batches, *, rng):
    """Several batches through both networks: ([student's outputs], [teacher's], new extra).

    The teacher runs in training mode too: its batch statistics are those of its own forward passes, never averaged.
    """
    ours, stats = train_each(student, params, state.extra["stats"], batches, rng=rng)
    theirs, teacher_stats = train_each(teacher, state.teacher, state.extra["teacher_stats"], batches, rng=rng)
    return ours, theirs, {"stats": stats, "teacher_stats": teacher_stats}


def first_layers(variables: dict, **kept: int) -> dict:
    """The variables without the later layers of some classes. kept: {class: how many layers of it stay}.

    Flax numbers the layers of a class in the order of their calls: Conv_0, Conv_1. Other names stay.
    """

    def stays(name: str) -> bool:
        kind, _, number = name.rpartition("_")
        return kind not in kept or int(number) < kept[kind]

    return {group: {name: tree for name, tree in layers.items() if stays(name)} for group, layers in variables.items()}


def without_drop_path(backbone):
    """The same backbone as a teacher takes it: with the same parameters, and all of its branches."""
    if hasattr(backbone, "backbone"):  # in pieces of a batch, or behind an input stage
        return backbone.clone(backbone=without_drop_path(backbone.backbone))
    return backbone.clone(drop_path=0.0) if hasattr(backbone, "drop_path") else backbone
