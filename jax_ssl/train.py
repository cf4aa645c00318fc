"""Train one self-supervised method from one config, from the first step or from where a run was interrupted.

`build` and `compile_step` make the program that trains; `plan` compiles that same program for a described pod, and the
tests shard it over simulated devices.
"""

import contextlib
import inspect
from typing import NamedTuple

import jax

from jax_ssl import augment, checkpoints, core, hosts, optim, profiling, schedules, sharding, watch
from jax_ssl.checks import check
from jax_ssl.config import to_dict
from jax_ssl.data import pipeline
from jax_ssl.encoder import at_depth, freeze
from jax_ssl.errors import RunError, UserError
from jax_ssl.evaluate import offline
from jax_ssl.metrics import Writer
from jax_ssl.models.micro import MicroBatched
from jax_ssl.parts import find_module, images_of, make_backbone, without_name
from jax_ssl.stop import Stop
from jax_ssl.visualize import pictures
from jax_ssl.warm_start import start_from, tell_first_step
from jax_ssl.watchdog import Watchdog


def build(config, examples: int):
    """Everything that touches no device: (method, optimiser, clock). examples: how many images an epoch has."""
    steps_per_epoch = examples / config.batch_size
    clock = schedules.Clock(steps_per_epoch, max(1, round(config.epochs * steps_per_epoch)))
    make = find_module("methods", config.method.name).make
    unknown = set(without_name(config.method)) - set(inspect.signature(make).parameters)
    if unknown:
        name = config.method.name
        raise UserError(f"method.name={name} knows no method.{min(unknown)}: start from --config=configs/{name}.py.")
    method = make(make_backbone(config), clock, **without_name(config.method))
    if config.micro_batch and method.per_image:
        method = core.in_pieces(method, config.micro_batch)
    elif config.micro_batch:
        method = make(MicroBatched(make_backbone(config), config.micro_batch), clock, **without_name(config.method))
    return method, optim.make(config.optim, config.batch_size, clock), clock


def preparation(config):
    """The device's part of the pipeline: (raw batch, resident images) -> the batch that a method sees."""
    return augment.prepare(config.data.crops, tuple(config.data.mean), tuple(config.data.std))


def shapes_of(example):
    """The pipeline's description of a raw batch, as jax takes it."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), example)


class Program(NamedTuple):
    """The two compiled programs of a run, and the shapes and layout of its state."""

    init: object  # key -> state
    step: object  # (state, raw batch, resident images) -> (state, metrics); the old state is given up
    state: core.TrainState  # of ShapeDtypeStruct with shardings


def compile_step(method, tx, prepare, mesh, example, resident=(), fsdp_min_size=sharding.FSDP_MIN_SIZE) -> Program:
    """Lays the state out over the mesh and jits both programs; nothing is compiled before the first call.

    example: shapes of the global raw batch; resident: the images that live on the devices, or (), or their shapes.
    """
    batch = jax.eval_shape(prepare, example, resident)
    shapes = jax.eval_shape(lambda b: core.create(method, tx, jax.random.key(0), b), batch)
    layout = sharding.state_layout(shapes, mesh, fsdp_min_size)
    split, whole = sharding.batched(mesh), sharding.replicated(mesh)

    def init(key):
        # Only the shapes of the batch matter here: XLA removes the forward pass on zeros.
        zeros = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), batch)
        return core.create(method, tx, key, zeros)

    def step(state, raw, resident):
        return core.train_step(method, tx, state, prepare(raw, resident))

    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout)
    return Program(
        init=jax.jit(init, out_shardings=layout),
        step=jax.jit(step, in_shardings=(layout, split, whole), out_shardings=(layout, whole), donate_argnums=0),
        state=abstract,
    )


def train(config, workdir: str, profile: tuple[int, int] | None = None) -> bool:
    """Trains to the end (True) or to a signal (False); the same call goes on where it stopped.

    profile: the first and the last step of a profile, kept in the run's folder. Every process of a run calls this.
    """
    check(config, jax.device_count())
    checkpoints.check_config(workdir, to_dict(config))
    data = pipeline.open_data(config, jax.process_index(), jax.process_count())
    method, tx, clock = build(config, data.source.count)
    profiling.check(profile, clock.total_steps)
    mesh = sharding.make_mesh(config.mesh.fsdp)
    with jax.set_mesh(mesh), contextlib.ExitStack() as stack:
        example = shapes_of(data.example)
        resident = () if data.resident is None else sharding.replicate(data.resident, mesh)
        prepare = preparation(config)
        program = compile_step(method, tx, prepare, mesh, example, resident)
        probe = pipeline.labelled(config)
        watchdog = stack.enter_context(Watchdog(config.hosts.hang_seconds, workdir, jax.process_index()))
        checkpoints.write_config(workdir, to_dict(config))
        notes = []  # what is said before there is a log to say it in
        keeper = checkpoints.Checkpoints(f"{workdir}/checkpoints", config.keep_last, config.keep_best, say=notes.append)
        stack.callback(keeper.close)
        stack.enter_context(hosts.parting())  # after an error, `close` would wait for the other processes
        state, first = restore_or_init(config, program, keeper)
        writer = Writer(workdir, first or None, clock.total_steps, config.batch_size, jax.process_index() == 0)
        stack.callback(writer.close)
        data.broken.log = keeper.say = writer.say
        for note in notes:
            writer.say(note)
        trace = profiling.Profile(profile if writer.active else None, f"{workdir}/profile", writer.say, first)
        stack.callback(trace.close)
        run = Run(
            config, str(workdir), method, probe, writer, keeper, mesh, jax.jit(prepare), resident, trace, watchdog
        )
        introduce(run, data, state, clock, first)
        with Stop(hosts.sync_point()) as stop, writer.clock.account.kind("step"):
            finished = loop(run, program, state, first, clock.total_steps, data, stop)
        if first < clock.total_steps:
            writer.say(writer.clock.account.sentence())
        return finished


class Run(NamedTuple):
    """What the loop's side work needs."""

    config: object
    workdir: str
    method: core.Method
    probe: pipeline.Probe | None
    writer: Writer
    keeper: checkpoints.Checkpoints
    mesh: object
    prepare: object
    resident: object
    trace: profiling.Profile
    watchdog: Watchdog


def restore_or_init(config, program, keeper):
    """The newest good checkpoint, or a new state, whose parameters may be given: (state, its step)."""
    restored = keeper.restore(program.state)
    if restored is not None:
        return restored
    state = program.init(jax.random.key(config.seed))
    return (start_from(config.init_from, state, config, keeper.say) if config.init_from else state), 0


def introduce(run: Run, data, state, clock, first: int) -> None:
    """Three calm lines before the first step."""
    config, count = run.config, sum(x.size for x in jax.tree.leaves(state.params))
    run.writer.say(
        f"{config.method.name} on {data.source.name}: {data.source.count:,} images, {clock.total_steps:,} steps of "
        f"{config.batch_size}, {count / 1e6:.2f} M parameters"
    )
    of = f" of {jax.process_count()} processes" if hosts.several() else ""
    run.writer.say(f"{jax.device_count()} {jax.devices()[0].device_kind} device(s){of}, run folder {run.workdir}")
    if run.probe is None:
        run.writer.say("no labelled images: kNN and linear probe are off (data.probe.name can name a labelled set)")
    if first:
        run.writer.say(f"going on from step {first:,}")


def loop(run: Run, program: Program, state, first: int, total: int, data, stop: Stop) -> bool:
    """Steps, and between them what is due: metrics, probe, pictures, checkpoint."""
    config, writer = run.config, run.writer
    watcher = watch.Watch(config.method.name, grace=min(100, total // 4), guards=run.method.guards)
    done, scores, batches = first, {}, data.batches(first)
    batch = sharding.shard_batch(next(batches), run.mesh) if first < total else None
    for done in range(first + 1, total + 1):
        shown = batch
        run.watchdog.alive()
        run.trace.turn(done, state)
        with writer.clock.paused("compile") if done == first + 1 else contextlib.nullcontext():
            state, metrics = program.step(state, batch, run.resident)
        writer.tick()
        if done == 1 and config.init_from:
            tell_first_step(config.init_from, jax.device_get(metrics), writer.say)
        stopping = stop.asked()  # once a turn: a signal later in this turn waits for the next one, which saves
        if done < total and not stopping:  # the next batch is on its way while the devices compute this one
            batch = sharding.shard_batch(writer.clock.next(batches), run.mesh)
        last = done == total or stopping
        due = lambda every, done=done, finished=done == total: finished or (every and done % every == 0)
        if last or done % config.log_every == 0:
            metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if metrics["skipped"] >= config.max_skipped:
                watch.check_finite(int(metrics["skipped"]), config.max_skipped, done, last_good(run.keeper))
            if due(config.probe_every) and run.probe is not None and not stopping:
                with writer.clock.paused("evaluation"):
                    scores = measure(run, state, done)
            metrics = writer.update(done, metrics | scores)
            judge(run, watcher, done, metrics)
            scores = {}
            run.keeper.poll()
        if last or done % config.checkpoint_every == 0:
            jax.block_until_ready(state)  # the rest of a step is no part of saving it
            with writer.clock.paused("checkpoint"):
                run.keeper.save(done, state, metrics if "knn" in metrics else None, wait=last)
            writer.saved(done)
        if due(config.picture_every) and not stopping:
            with writer.clock.paused("pictures"):
                draw(run, state, shown, done)
        if stopping and done < total:
            writer.say(f"stopped at step {done:,} of {total:,}, all saved; the same command goes on from here")
            break
    return done == total


def last_good(keeper) -> str | None:
    step = keeper.latest_good()
    return None if step is None else str(keeper.path(step))


def measure(run: Run, state, step: int) -> dict:
    """kNN and linear probe of the student on the held-out images."""
    encode = freeze(make_backbone(run.config), state, **images_of(run.config))
    measured = offline.measure(at_depth(encode, run.config.feature_depth), run.probe, run.config.seed)
    k = min(measured.knn, key=lambda k: abs(k - 20))
    return {"knn": measured.knn[k], "linear": measured.linear["top1"], "rankme": measured.rankme}


def judge(run: Run, watcher, step: int, metrics: dict) -> None:
    """Says so when the run looks collapsed; stops it if it was told to."""
    sentence = watcher.check(step, metrics)
    if sentence is None:
        return
    if run.config.on_collapse == "stop":
        raise RunError(sentence)
    run.writer.say(sentence)


def draw(run: Run, state, raw, step: int) -> None:
    """The views, and what the method shows of itself, as PNG files; then the curves up to now."""
    if hosts.several():
        return  # the batch is spread over hosts; pictures are for `visualize` on one of them
    batch = run.prepare(raw, run.resident)
    few = {name: views[:64] for name, views in batch.items()}
    shown = {name: views[:8] for name, views in few.items()}
    shown |= jax.jit(run.method.show)(state.params, state, few, jax.random.key(run.config.seed))
    folder = f"{run.workdir}/pictures"
    pictures.save_shown(jax.device_get(shown), folder, step, run.config.data.mean, run.config.data.std)
    run.writer.flush()
    pictures.save_curves(f"{run.workdir}/metrics.jsonl", f"{folder}/curves.png")
