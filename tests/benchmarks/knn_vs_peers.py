"""Exact weighted kNN of 10 000 test features in a bank of 50 000: ours, scikit-learn's brute force and PyTorch.

    pip install scikit-learn torch
    python tests/benchmarks/knn_vs_peers.py                                    # 50 000 x 2 048, minutes on two cores
    python tests/benchmarks/knn_vs_peers.py --bank=10000 --queries=2000 --torch=/path/to/python --rounds=3

Each side is a process of its own that maps the same two files, so that its peak memory is its own: what it needs above
what it had when its libraries were loaded, and above the features. The sides take turns, and the fastest turn counts;
where other programs share the cores, look at the processor seconds. All have to give the same accuracy. --torch:
another Python, where PyTorch is not in this one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

K, TEMPERATURE, CLASSES = 20, 0.07, 100
SIDES = ("ours", "sklearn", "torch")


def write_features(folder: Path, bank: int, queries: int, width: int) -> None:
    """bank.npy, test.npy and their labels: noise around one centre a class, so that neighbours mean something."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((CLASSES, width), np.float32)
    for name, count in (("bank", bank), ("test", queries)):
        labels = random.integers(0, CLASSES, count).astype(np.int32)
        file = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (count, width))
        for start in range(0, count, 5000):
            rows = labels[start : start + 5000]
            file[start : start + 5000] = centres[rows] + 8 * random.standard_normal((len(rows), width), np.float32)
        file.flush()
        np.save(folder / f"{name}_labels.npy", labels)


def ours(bank, labels, test):
    from jax_ssl.evaluate import knn

    return lambda: knn.classify(bank, labels, test, K, TEMPERATURE, CLASSES)


def sklearn(bank, labels, test):
    from sklearn.neighbors import KNeighborsClassifier

    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    votes = lambda distance: np.exp((1 - distance**2 / 2) / TEMPERATURE)  # of the cosine of unit vectors
    model = KNeighborsClassifier(K, algorithm="brute", weights=votes, n_jobs=-1)
    return lambda: model.fit(unit(bank), labels).predict(unit(test))


def torch(bank, labels, test):
    import torch as t

    def run():
        of = lambda x: t.nn.functional.normalize(t.from_numpy(np.array(x)), dim=1)
        whole, queries, targets, found = of(bank), of(test), t.from_numpy(labels).long(), []
        for part in queries.split(1000):
            similarity, rows = (part @ whole.T).topk(K, dim=1)
            votes = t.zeros(len(part), CLASSES).scatter_add_(1, targets[rows], (similarity / TEMPERATURE).exp())
            found.append(votes.argmax(1))
        return t.cat(found).numpy()

    return run


def measure(side: str, folder: Path) -> None:
    """One side: prints {seconds, accuracy, memory in GB above its libraries and the features} as JSON."""
    load = lambda name: np.load(folder / f"{name}.npy", mmap_mode="r")
    bank, test, labels, truth = load("bank"), load("test"), np.array(load("bank_labels")), load("test_labels")
    run = globals()[side](bank, labels, test)
    if side == "ours":
        import jax

        jax.devices()
        run_few = globals()[side](bank[:4096], labels[:4096], test[:2048])
    else:
        run_few = globals()[side](bank[:256], labels[:256], test[:64])
    run_few()  # compiles, starts threads
    before, begun, busy = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
    predicted = run()
    seconds, busy = time.perf_counter() - begun, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    above = (peak - before) / 2**20 - (bank.nbytes + test.nbytes) / 2**30
    print(json.dumps(dict(seconds=seconds, busy=busy, accuracy=float(np.mean(predicted == truth)), above=above,
                          peak=peak / 2**20)))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, value in dict(bank=50_000, queries=10_000, width=2048, rounds=2).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--torch", default=sys.executable)
    parser.add_argument("--side")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.side:
        return measure(args.side, args.folder)
    with tempfile.TemporaryDirectory() as folder:
        write_features(Path(folder), args.bank, args.queries, args.width)
        found = {side: [] for side in SIDES}
        for _ in range(args.rounds):
            for side in SIDES:
                python = args.torch if side == "torch" else sys.executable
                words = [python, __file__, f"--side={side}", f"--folder={folder}"]
                environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "JAX_PLATFORMS": "cpu"}
                environment.pop("OPENBLAS_CORETYPE", None)  # it slows NumPy's products
                done = subprocess.run(words, env=environment, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"{side} failed: {done.stderr}")
                found[side].append(json.loads(done.stdout.splitlines()[-1]))
    cores = len(os.sched_getaffinity(0))
    print(f"{args.queries:,} x {args.bank:,} x {args.width:,}, k = {K}, {cores} cores, best of {args.rounds} turns")
    least = {unit: min(turn[unit] for turn in found["ours"]) for unit in ("seconds", "busy")}
    for side, turns in found.items():
        best = {key: min(turn[key] for turn in turns) for key in ("seconds", "busy")}
        above, peak = (max(turn[key] for turn in turns) for key in ("above", "peak"))
        print(f"{side:10}{best['seconds']:>8.1f} s  {best['seconds'] / least['seconds']:>5.2f} x ours   "
              f"{best['busy']:>8.1f} s of processors  {best['busy'] / least['busy']:>5.2f} x ours   memory above the "
              f"features {above:>5.2f} GB, peak {peak:.2f} GB   top-1 {100 * turns[0]['accuracy']:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
