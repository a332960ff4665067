"""`Runtime`: the strategy, precision and compilation that a run computes with."""

import contextlib
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.distribute.cluster_resolver import slurm_cluster_resolver

from tf_finetune.errors import UserError
from tf_finetune.runs.cluster import EXAMPLE, Cluster, read_cluster
from tf_finetune.runs.config import RuntimeConfig
from tf_finetune.runtime.workers import Workers

CPU_BFLOAT16 = {"avx512_bf16", "amx_bf16"}
# With more, operations that are not in parts, such as the attention to a prompt, would leave most
# of them idle.
MOST_CORES = 4


@dataclass(frozen=True)
class Runtime:
    """Where and how a model computes. `Runtime()` has TensorFlow's current strategy, without XLA.

    Attributes:
        strategy: Spreads the work over devices; the model is made under it.
        jit_compile: Whether XLA compiles the step.
        steps_per_loop: Steps per call of the compiled loop; signals are checked between calls.
        description: The choices and their reasons, to be printed.
    """

    strategy: tf.distribute.Strategy = field(default_factory=tf.distribute.get_strategy)
    jit_compile: bool = False
    steps_per_loop: int = 1
    description: str = ""

    @cached_property
    def workers(self) -> Workers:
        """The processes of the strategy."""
        return Workers(self.strategy)

    @property
    def num_replicas(self) -> int:
        """The number of devices that share a batch, over all workers."""
        return int(self.strategy.num_replicas_in_sync)

    def scope(self) -> AbstractContextManager[Any]:
        """Returns the strategy's scope, in which a model and its optimizer must be made."""
        return self.strategy.scope()


def make_runtime(config: RuntimeConfig = RuntimeConfig()) -> Runtime:
    """Sets up the hardware of a run: strategy, precision, XLA, seed.

    It sets Keras' global dtype policy and its seed, from which every dropout layer draws its own.

    Args:
        config: The user's settings.

    Raises:
        UserError: The hardware that `config` names is missing.
    """
    strategy, reason = make_strategy(config)
    policy, policy_reason = choose_precision(config.precision)
    jit_compile = choose_jit_compile(config.jit_compile)
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    compile_unseen()
    description = (
        f"strategy   {type(strategy).__name__} ({strategy.num_replicas_in_sync}): {reason}\n"
        f"precision  {policy}: {policy_reason}; XLA {'on' if jit_compile else 'off'}"
    )
    steps_per_loop = choose_steps_per_loop(config.steps_per_loop)
    return Runtime(strategy, jit_compile, steps_per_loop, description)


def choose_precision(precision: str) -> tuple[str, str]:
    """Resolves `auto` to the fastest policy that trains as well as float32 on this hardware.

    Args:
        precision: `auto` or the name of a Keras dtype policy.

    Returns:
        The policy's name and the reason for it.
    """
    if precision != "auto":
        return precision, "as asked"
    if tf.config.list_logical_devices("TPU"):
        return "mixed_bfloat16", "a TPU"
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability")
        if capability and capability >= (8, 0):
            return "mixed_bfloat16", f"a GPU of compute capability {capability[0]}.{capability[1]}"
        return "float32", "this GPU has no bfloat16"
    found = CPU_BFLOAT16 & _cpu_flags()
    if found:
        return "mixed_bfloat16", f"this CPU has {', '.join(sorted(found))}"
    return "float32", "this CPU has no bfloat16"


def choose_jit_compile(jit_compile: str) -> bool:
    """Resolves `auto`: XLA on GPU and TPU; on CPU oneDNN's matrix products are faster."""
    if jit_compile != "auto":
        return jit_compile == "true"
    return bool(tf.config.list_physical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def compile_unseen() -> None:
    """Compiles a trivial function with XLA while standard error is redirected to `/dev/null`.

    TensorFlow logs the first compilation of a process at any log level, into the progress bar. The
    call takes 0.08 s, of which 0.06 s start XLA: the first kernel saves these (AMD EPYC).
    """
    if tf.config.list_logical_devices("TPU"):
        return  # XLA compiles nothing on the host.
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        stderr = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            # A machine whose XLA does not work may not need it.
            with contextlib.suppress(tf.errors.OpError):
                tf.function(lambda x: x + 1, jit_compile=True)(tf.zeros([]))
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def spread_over_operations() -> None:
    """Lets each core compute an operation of its own, where there are few and no accelerator.

    To share out an operation takes some 50 µs, longer than the small ones of decoding take. Those
    worth sharing are in parts; see `DecodingWeights`. It has to be called before TensorFlow
    computes anything, and does nothing afterwards.
    """
    cores = os.cpu_count() or 1
    if cores <= MOST_CORES and not tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(cores)


def choose_steps_per_loop(steps_per_loop: int | None) -> int:
    """Resolves None: 20, but 1 on CPU: steps are long there, and a signal waits for the last."""
    if steps_per_loop:
        return steps_per_loop
    on_cpu = not (tf.config.list_physical_devices("GPU") or tf.config.list_logical_devices("TPU"))
    return 1 if on_cpu else 20


def make_strategy(config: RuntimeConfig) -> tuple[tf.distribute.Strategy, str]:
    """Makes the strategy that spreads the work over devices.

    Args:
        config: Its `distribution_strategy` and `tpu` are read.

    Returns:
        The strategy and the reason for it.

    Raises:
        UserError: The hardware that `config` names is missing.
    """
    # Listing logical devices initializes TensorFlow, which workers must do after they have
    # connected: list physical ones.
    gpus = tf.config.list_physical_devices("GPU")
    name, tpu, cluster = config.distribution_strategy, config.tpu, read_cluster(config)
    reason = "as asked"
    if name == "auto":
        if tpu:
            name, reason = "tpu", f"--tpu={tpu}"
        elif cluster.num_workers > 1:
            reason = f"{cluster.source} names {cluster.num_workers} workers"
            name = "multi_worker"
        elif len(gpus) > 1:
            name, reason = "mirrored", f"{len(gpus)} GPUs"
        else:
            name, reason = "one_device", "one GPU" if gpus else "no GPU or TPU"
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu or "")
        except (ValueError, OSError, tf.errors.OpError) as error:
            raise UserError(
                f"--tpu={tpu or ''}: cannot connect: {error}. "
                "Give the TPU's name, its grpc:// address, or local on a TPU VM."
            ) from None
        return tf.distribute.TPUStrategy(resolver), reason
    if name == "multi_worker":
        if not cluster.source:
            raise UserError(
                "--distribution_strategy=multi_worker: neither the environment variable TF_CONFIG "
                f"nor Slurm names workers. Set TF_CONFIG on each of them, e.g. {EXAMPLE}."
            )
        resolver = _slurm_resolver(cluster, len(gpus)) if cluster.source == "Slurm" else None
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver), reason
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU" if gpus else "CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices]), reason
    # The default strategy: OneDeviceStrategy does the same with additional copies.
    return tf.distribute.get_strategy(), reason


def _slurm_resolver(
    cluster: Cluster, num_gpus: int
) -> tf.distribute.cluster_resolver.ClusterResolver:
    """Finds the addresses of the tasks of a Slurm step, in the order of their ranks."""
    # TensorFlow's own resolver sorts the hosts by name, and finds no tasks without GPUs.
    hosts = slurm_cluster_resolver.expand_hostlist(os.environ["SLURM_STEP_NODELIST"])
    tasks = slurm_cluster_resolver.expand_tasks_per_node(os.environ["SLURM_STEP_TASKS_PER_NODE"])
    # Jobs that share a host must not share ports.
    job, step = (int(os.environ.get(f"SLURM_{name}_ID", "0")) for name in ("JOB", "STEP"))
    port = 12000 + (job + step) * max(tasks) % 20000
    addresses = [
        f"{host}:{port + task}"
        for host, count in zip(hosts, tasks, strict=True)
        for task in range(count)
    ]
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": addresses}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
        num_accelerators={"GPU": num_gpus},
    )


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
