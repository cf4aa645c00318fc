"""`train`: trains one config, from its first step or from the last checkpoint of an interrupted run."""

import os
import shlex

from jax_ssl.commands.command_line import at_least

HELP = "train one config, or go on with an interrupted run"


def add_flags(parser) -> None:
    parser.add_argument("--config", required=True, help="a config file and preset: configs/simclr.py:tiny")
    parser.add_argument("--workdir", help="the run's folder; default runs/NAME_PRESET")
    parser.add_argument("--extend", action="store_true", help="go on to more epochs than the folder's run has")
    parser.add_argument("--profile", help="START:STOP, the first and the last step to trace into RUN/profile")
    parser.add_argument("--coordinator", help="several processes: HOST:PORT where process 0 listens to the others")
    parser.add_argument(
        "--processes", type=at_least(1), help="how many processes; not needed on TPU VMs, GKE and SLURM"
    )
    parser.add_argument("--process", type=at_least(0), help="which one this is, 0 to N-1")
    parser.add_argument(
        "--stopped-exit", type=int, default=0, help="exit code of a run that a signal stopped; default 0"
    )


def run(args, overrides) -> int:
    from jax_ssl import bounds, config
    from jax_ssl.run import checks, hosts, profiling

    bounds.bounded("--", {"stopped-exit": args.stopped_exit}, at_least=0, at_most=255)
    settings = config.load(args.config, overrides)
    checks.check_steps(settings)  # now, because the timeouts of `hosts` are used before `train` checks the config
    profile = profiling.parse(args.profile) if args.profile else None
    path, preset = config.find(args.config)
    workdir = args.workdir or f"runs/{path.stem}{'_' + preset if preset else ''}"
    where = hosts.find_place(args.coordinator, args.processes, args.process, os.environ)
    with hosts.connected(where, settings.hosts.init_timeout, settings.hosts.heartbeat) as say:
        from jax_ssl.study import evaluation, measure
        from jax_ssl.study.report import at_end
        from jax_ssl.train import train

        command = ["python", "-m", "jax_ssl", "train", f"--config={args.config}", f"--workdir={workdir}", *overrides]

        def conclude():
            table = None
            if settings.evaluate_at_end and hosts.from_first(not measure.has_table(workdir)):
                table = evaluation.measure_at_end(workdir, say)
                say(f"\ncurves and pictures in {workdir}/pictures, numbers in {workdir}/results.jsonl")
            at_end.write_page(workdir, shlex.join(command), settings.evaluate_at_end, table, say)

        finished = train(settings, workdir, profile, args.extend, conclude)
    return 0 if finished else args.stopped_exit
