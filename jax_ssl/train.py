"""Train one self-supervised method from one config, from the first step or from where a run was interrupted.

`build` and `compile_step` make the program that trains; `plan` compiles that same program for a described pod, and the
tests shard it over simulated devices.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import jax

from jax_ssl import core, sharding
from jax_ssl.config import to_dict
from jax_ssl.data import pipeline
from jax_ssl.data.split import Probe
from jax_ssl.encoder import at_depth, freeze
from jax_ssl.errors import RunError, sentence_of
from jax_ssl.evaluate import offline, pretext
from jax_ssl.optim import optimizers, schedules
from jax_ssl.parts import images_of, make_method, network_of
from jax_ssl.run import checkpoints, collapse, hosts, identity, lock, probe, profiling, tallies
from jax_ssl.run.checks import check, check_fit
from jax_ssl.run.introduction import describe_extension, introduction
from jax_ssl.run.metrics import Writer
from jax_ssl.run.progress import Counter, told_if_slow
from jax_ssl.run.stop import Stop
from jax_ssl.run.watchdog import Watchdog
from jax_ssl.views import device as on_device
from jax_ssl.visualize import pictures
from jax_ssl.visualize import shown as shown_pictures
from jax_ssl.weights.warm_start import check_exists, start_from, warn_first_step


def build(config, examples: int):
    """Everything that touches no device: (method, optimiser, clock). examples: how many images an epoch has."""
    steps_per_epoch = examples / config.batch_size
    clock = schedules.Clock(steps_per_epoch, max(1, round(config.epochs * steps_per_epoch)))
    method = make_method(config, clock)
    return method, optimizers.make(config.optim, config.batch_size, clock), clock


def preparation(config):
    """The device's part of the pipeline: a function (raw batch, resident images) -> the batch that a method gets."""
    return on_device.prepare(config.data.crops, tuple(config.data.mean), tuple(config.data.std))


def shapes_of(example):
    """The shapes and dtypes of a raw batch, as a pytree of `jax.ShapeDtypeStruct`."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), example)


class Program(NamedTuple):
    """The two compiled programs of a run, and the shapes and layout of its state."""

    init: object  # key -> state
    step: object  # (state, raw batch, resident images) -> (state, metrics); the old state is donated
    state: core.TrainState  # of ShapeDtypeStruct with shardings


def compile_step(method, tx, prepare, mesh, example, resident=(), fsdp_min_size=sharding.FSDP_MIN_SIZE) -> Program:
    """Lays the state out over the mesh and jits both programs; nothing is compiled before the first call.

    example: shapes of the global raw batch; resident: the images that live on the devices, or (), or their shapes.
    """
    batch = jax.eval_shape(prepare, example, resident)

    @jax.jit  # traced once, for its shapes and for the program, of which XLA removes the forward pass on zeros
    def init(key):
        return core.create(method, tx, key, jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), batch))

    shapes = jax.eval_shape(lambda: init(jax.random.key(0)))  # a compiler alone draws no key
    layout = sharding.state_layout(shapes, mesh, fsdp_min_size)
    split, whole = sharding.batched(mesh), sharding.replicated(mesh)

    def step(state, raw, resident):
        return core.train_step(method, tx, state, prepare(raw, resident))

    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout)
    return Program(
        init=jax.jit(init, out_shardings=layout),
        step=jax.jit(step, in_shardings=(layout, split, whole), out_shardings=(layout, whole), donate_argnums=0),
        state=abstract,
    )


def train(config, workdir: str, profile=None, extend=False, at_end: Callable[[], None] = lambda: None) -> bool:
    """Trains to the last step (returns True) or until a signal (returns False); the same call resumes the run.

    profile: (first, last) step to trace into the run's folder, or None. extend: the run in that folder may have fewer
    epochs than the config. at_end: called after the last step, while no other command may write to the folder. Every
    process of a run calls this. Raises UserError for a mistake of the user, before long work.
    """
    check(config, jax.device_count())
    identity.check_writable(workdir)
    with lock.exclusive(workdir):
        finished = train_in(workdir, config, profile, extend)
        if finished:
            at_end()
        return finished


def train_in(workdir: str, config, profile, extend: bool) -> bool:
    """`train` in a folder that no other command writes to: checks what the folder already has, then runs the steps."""
    notes = []  # sentences for the user from before the log is open
    epochs = identity.check_config(workdir, to_dict(config), extend, notes.append)
    if config.init_from and not identity.has_saved_steps(workdir):
        check_exists(config.init_from)
    progress = None if jax.process_index() else Counter
    data = pipeline.open_data(config, jax.process_index(), jax.process_count(), progress=progress)
    identity.check_data(workdir, data.source)
    return run_steps(config, workdir, profile, data, epochs, notes)


def run_steps(config, workdir: str, profile, data, epochs: float, notes: list[str]) -> bool:
    """Sets up everything around the loop and runs it. epochs: of the run in that folder; notes: printed first."""
    method, tx, clock = build(config, data.source.count)
    notes += check_fit(method, clock, config, data.source.count)
    tallies.look(method, config, data.source)
    profiling.check(profile, clock.total_steps)
    curves = {**optimizers.curves(config.optim, config.batch_size, clock), **method.curves}
    mesh = sharding.make_mesh(config.mesh.fsdp)
    with jax.set_mesh(mesh), contextlib.ExitStack() as stack:
        example = shapes_of(data.example)
        resident = () if data.resident is None else sharding.replicate(data.resident, mesh)
        prepare = preparation(config)
        program = compile_step(method, tx, prepare, mesh, example, resident)
        splits, probe_note = probe.find(config)
        watchdog = stack.enter_context(Watchdog(config.hosts.hang_seconds, workdir, jax.process_index()))
        identity.write_config(workdir, to_dict(config))
        keeper = checkpoints.Checkpoints(f"{workdir}/checkpoints", config.keep_last, config.keep_best, say=notes.append)
        stack.callback(keeper.close)
        stack.enter_context(hosts.exit_on_error())  # after an error, `close` would wait for the other processes
        state, first = restore_or_init(config, program, keeper)
        if first and epochs != config.epochs:
            notes.append(describe_extension(config, epochs, clock, first))
        writer = Writer(workdir, first or None, clock.total_steps, config.batch_size, jax.process_index() == 0)
        stack.callback(writer.close)
        data.broken.log = keeper.say = writer.say
        for line in introduction(config, workdir, data.source, splits, probe_note, state, clock, method, first, notes):
            writer.say(line)
        probing = splits is not None and config.probe_every and first < clock.total_steps
        with writer.clock.paused("init"):
            labelled = probe.read_or_say(config, splits, writer.say, watchdog.alive) if probing else None
            state = state if first else tallies.count(method, state, config, data.source, writer.say, watchdog.alive)
        trace = profiling.Profile(profile if writer.active else None, f"{workdir}/profile", writer.say, first)
        stack.callback(trace.close)
        run = Run(
            config, str(workdir), method, labelled, curves, writer, keeper, mesh, jax.jit(prepare), resident, trace,
            watchdog,
        )  # fmt: skip
        with Stop(hosts.sync_point()) as stop, writer.clock.account.count_as("step"):
            finished = loop(run, program, state, first, clock, data, stop)
        if first < clock.total_steps:
            writer.say(writer.clock.account.sentence())
        return finished


class Run(NamedTuple):
    """What the loop needs between the steps: to log, measure, draw and save."""

    config: object
    workdir: str
    method: core.Method
    probe: Probe | None
    curves: dict
    writer: Writer
    keeper: checkpoints.Checkpoints
    mesh: object
    prepare: object
    resident: object
    trace: profiling.Profile
    watchdog: Watchdog


def restore_or_init(config, program, keeper):
    """(state, its step): the newest good checkpoint; else a new state, with the weights of `init_from` if it is set."""
    restored = keeper.restore(program.state)
    if restored is not None:
        return restored
    state = program.init(jax.random.key(config.seed))
    return (start_from(config.init_from, state, config, keeper.say) if config.init_from else state), 0


def loop(run: Run, program: Program, state, first: int, clock: schedules.Clock, data, stop: Stop) -> bool:
    """Runs the steps, and between them what is due: checkpoint, then probe, metrics and pictures.

    The checkpoint comes first, so that a probe or picture that fails loses no step. Returns whether the last step was
    made; False after a signal.
    """
    config, writer, total = run.config, run.writer, clock.total_steps
    warmup = config.optim.warmup_epochs * clock.steps_per_epoch
    watcher = collapse.Watch(config.method.name, min(100, total // 4), guards=run.method.guards, warmup=warmup)
    watcher.recall(hosts.from_first(writer.least("uniformity")))
    done, batches = first, data.batches(first)
    batch = sharding.shard_batch(next(batches), run.mesh) if first < total else None
    for done in range(first + 1, total + 1):
        shown = batch
        run.watchdog.alive()
        run.trace.before_step(done, state)
        with compiling(writer, config) if done == first + 1 else contextlib.nullcontext():
            state, metrics = program.step(state, batch, run.resident)
        writer.tick()
        if done == 1 and config.init_from:
            warn_first_step(config.init_from, jax.device_get(metrics), writer.say)
        stopping = stop.asked()  # once per step: a signal that comes later is answered after the next step
        if done < total and not stopping:  # fetch the next batch while the devices compute this one
            batch = sharding.shard_batch(writer.clock.next(batches), run.mesh)
        last = done == total or stopping
        every = lambda steps, done=done: done == total or done % steps == 0
        probing = bool(config.probe_every) and every(config.probe_every) and run.probe is not None and not stopping
        logging = last or probing or done % config.log_every == 0
        if logging:
            metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if not collapse.is_constant(metrics):
                run.keeper.mark_finite(done, int(metrics["skipped"]))
            if metrics["skipped"] >= config.max_skipped:
                collapse.check_finite(int(metrics["skipped"]), config.max_skipped, done, run.keeper.mark_ruined())
        if last or done % config.checkpoint_every == 0:
            jax.block_until_ready(state)  # else the rest of the step would count as time of saving
            with writer.clock.paused("checkpoint"):
                run.keeper.save(done, state, wait=last)
            writer.saved(done)
        if logging:
            scores = {}
            if probing:
                with writer.clock.paused("evaluation"), side_work(run, "The probe", done):
                    scores = measure(run, state)
                    if "knn" in scores:
                        run.keeper.score(done, scores["knn"])
            metrics = writer.update(done, metrics | values_of(run.curves, done - 1) | scores)
            judge(run, watcher, done, metrics)
            run.keeper.poll()
        if not stopping and (done == total or (config.picture_every and every(config.picture_every))):
            with writer.clock.paused("pictures"), side_work(run, "The pictures", done):
                draw(run, state, shown, done)
        if stopping and done < total:
            writer.say(f"stopped at step {done:,} of {total:,}, all saved; the same command goes on from here")
            break
    if done > first and metrics["skipped"]:
        collapse.check_any_finite(int(metrics["skipped"]), done - first, done)
    return done == total


@contextlib.contextmanager
def compiling(writer: Writer, config):
    """For the first step, in which the program is compiled: of a large network this takes minutes."""
    done = f"compiled in {{seconds}}; a line every {config.log_every:,} steps follows"
    with writer.clock.paused("compile"), told_if_slow("compiling the training step ...", done, writer.say):
        yield


@contextlib.contextmanager
def side_work(run: Run, what: str, step: int):
    """For work that is not training: if it fails, one line says so and training goes on."""
    try:
        yield
    except Exception as error:
        run.writer.say(f"{what} of step {step:,} failed, and training goes on: {sentence_of(error)}")


def values_of(curves, step: int) -> dict:
    """{name: float} of the schedules at a step (0 = the first)."""
    return {name: float(curve(step)) for name, curve in curves.items()}


def measure(run: Run, state) -> dict:
    """kNN and linear probe of the student on the held-out images, and its own puzzle if it has one."""
    encode = freeze(network_of(run.config), state, **images_of(run.config))
    measured = offline.measure(at_depth(encode, run.config.feature_depth), run.probe, run.config.seed)
    for note in measured.notes:
        run.writer.say_once(note)  # it is the same at every probe
    own = pretext.scores(run.method.task, state, encode, run.probe.test_images, run.config.seed, run.writer.say_once)
    return offline.scores(measured) | own


def judge(run: Run, watcher, step: int, metrics: dict) -> None:
    """Prints a warning when the run looks collapsed; raises RunError instead with `on_collapse=stop`."""
    sentence = watcher.check(step, metrics)
    if sentence and run.config.on_collapse == "stop":
        raise RunError(sentence)
    if sentence:
        run.writer.say(sentence)


def draw(run: Run, state, raw, step: int) -> None:
    """Writes the views, the pictures of the method's `show`, and the curves so far as PNG files."""
    if hosts.is_distributed():
        return  # no process has the whole batch; use `visualize` on one host
    batch = run.prepare(raw, run.resident)
    few = {name: views[:64] for name, views in batch.items()}
    shown = jax.jit(run.method.show)(state.params, state, few, jax.random.key(run.config.seed))
    views, shown = jax.device_get(({name: views[:8] for name, views in few.items()}, shown))
    data, folder = run.config.data, f"{run.workdir}/pictures"
    shown_pictures.save(run.config.method.name, views, shown, folder, step, data.mean, data.std)
    run.writer.flush()
    pictures.save_curves(f"{run.workdir}/metrics.jsonl", f"{folder}/curves.png")
