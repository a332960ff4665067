r"""What a second worker costs and brings, measured on one machine, and what that means for more.

    python -m benchmarks.scaling --output=out/benchmark/scaling.json

Each worker is a process on a core of its own and has the same work: 16 texts of 64 tokens a step of
all-MiniLM-L6-v2's shape. Two workers exchange their gradients through 127.0.0.1, whose counters say
how many bytes. For more workers on other links the model is

    seconds(n) = compute + 2 (n - 1) / n * gradient bytes / bandwidth + 2 (n - 1) * latency,

a ring all-reduce (Patarasuk and Yuan, 2009) that overlaps with nothing.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.local_workers import last_lines, start_workers

BATCH, LENGTH = 16, 64
WARM_UP, STEPS = 3, 12
# Links in bytes per second, and the time of a message between two hosts in seconds.
LINKS = {"10 Gbit/s": 1.25e9, "100 Gbit/s": 1.25e10, "400 Gbit/s": 5e10}
LATENCY = 2e-5


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("out/benchmark/scaling.json"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        work()
        return
    rounds: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(arguments.rounds):
        for workers, results in rounds.items():
            results.append(measure(workers))
            print(workers, results[-1], flush=True)
    medians = {
        workers: {key: statistics.median(one[key] for one in results) for key in results[0]}
        for workers, results in rounds.items()
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"rounds": rounds, "medians": medians}, indent=1) + "\n")
    print("\n| workers | step, s | steps/s | examples/s | bytes of all workers, MB a step |")
    print("| --- | --- | --- | --- | --- |")
    for workers, one in medians.items():
        seconds = one["seconds"]
        cells = (f"{seconds:.3f}", f"{1 / seconds:.2f}", f"{workers * BATCH / seconds:.1f}")
        print(f"| {workers} | {' | '.join(cells)} | {one['bytes'] / 1e6:.0f} |")
    print("\n" + model_table(medians[1]["seconds"], medians[2]["bytes"] / 2))


def measure(workers: int) -> dict[str, float]:
    """Runs some workers and returns the seconds and the bytes of all of them for a step."""
    commands = [
        ["taskset", "-c", str(index), sys.executable, "-m", "benchmarks.scaling", "--worker"]
        for index in range(workers)
    ]
    results = [json.loads(line) for line in last_lines(start_workers(commands))]
    return {key: max(result[key] for result in results) for key in results[0]}


def work() -> None:
    """Trains some steps and prints the median step's seconds and the mean of the bytes."""
    import tensorflow as tf

    from benchmarks.growth import Point
    from tf_finetune import RuntimeConfig, make_runtime
    from tf_finetune.training.step import make_train_loop

    runtime = make_runtime(RuntimeConfig(seed=1, jit_compile="false"))
    point = Point(batch_size=BATCH * runtime.num_replicas, length=LENGTH)
    with runtime.scope():
        model = point.make_model()
    batch = point.make_batch()
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    dataset = tf.data.Dataset.from_tensors(batch).repeat().with_options(options)
    batches = iter(runtime.strategy.experimental_distribute_dataset(dataset))
    loop = make_train_loop(model, runtime)
    loop(batches, tf.constant(WARM_UP))
    seconds, sent = [], loopback_bytes()
    for _ in range(STEPS):
        started = time.perf_counter()
        loop(batches, tf.constant(1))[0].numpy()
        seconds.append(time.perf_counter() - started)
    moved = (loopback_bytes() - sent) / STEPS
    print(json.dumps({"seconds": statistics.median(seconds), "bytes": moved}), flush=True)


def loopback_bytes() -> int:
    """Returns the bytes that have gone through 127.0.0.1 since the machine was started."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


def ring_seconds(workers: int, gradient_bytes: float, bandwidth: float) -> float:
    """Returns the seconds of a ring all-reduce; see the module."""
    share = 2 * (workers - 1) / workers
    return share * gradient_bytes / bandwidth + 2 * (workers - 1) * LATENCY


def model_table(compute: float, gradient_bytes: float) -> str:
    """Returns the model's efficiency, compute over step, as a Markdown table."""
    lines = ["| workers | " + " | ".join(LINKS) + " |", "| --- |" + " --- |" * len(LINKS)]
    for workers in (2, 8, 64, 512):
        cells = (
            f"{compute / (compute + ring_seconds(workers, gradient_bytes, bandwidth)):.0%}"
            for bandwidth in LINKS.values()
        )
        lines.append(f"| {workers} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
