"""The workers of a strategy: the values they exchange, and the exit status of their run."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.runs.cluster import read_cluster, reporting
from tf_finetune.runs.config import RuntimeConfig

# The errors of a collective operation when another process has ended.
CONNECTION_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)
# The longest JSON object that the chief can send to the others, in bytes.
STATE_BYTES = 8192


class Workers:
    """The processes of a strategy. All of them must call the same methods at the same time.

    They exchange nothing through files: to train, workers need no file system in common.

    Args:
        strategy: Any strategy. All but `MultiWorkerMirroredStrategy` run in one process.

    Attributes:
        is_multi_worker: Whether there are several processes.
        is_chief: Whether this process writes checkpoints and results.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self.is_multi_worker = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self.is_chief = bool(strategy.extended.should_checkpoint)
        self._sum_of_one = tf.function(self._sum)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any of the workers."""
        if not self.is_multi_worker:
            return flag
        (total,) = self._sum_of_one([tf.constant(int(flag))])
        return bool(total > 0)

    def share_variables(self, variables: Sequence[tf.Variable]) -> None:
        """Gives all workers the chief's values, bit for bit."""
        if not self.is_multi_worker:
            return
        values = [tf.convert_to_tensor(variable) for variable in variables]
        for variable, value in zip(variables, self._from_chief(values), strict=True):
            variable.assign(value)

    def share_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Returns the chief's JSON object."""
        if not self.is_multi_worker:
            return state
        text = json.dumps(state).encode()
        padded = np.zeros(STATE_BYTES, np.int32)
        padded[: len(text)] = list(text)
        (shared,) = self._from_chief([tf.constant(padded)])
        return json.loads(bytes(shared.numpy().astype(np.uint8)).rstrip(b"\0"))

    def wait(self) -> None:
        """Blocks until every worker has called it."""
        self.any(False)

    def _from_chief(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        # All-reduce cannot sum every dtype: the seeds of dropout are uint32.
        sums = [tf.cast(v, tf.int64) if v.dtype in (tf.uint32, tf.bool) else v for v in values]
        # The sum is the chief's value: all others add zeros.
        own = sums if self.is_chief else [tf.zeros_like(value) for value in sums]
        shared = tf.function(self._sum)(own)
        return [tf.cast(s, value.dtype) for s, value in zip(shared, values, strict=True)]

    def _sum(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Adds up tensors over the workers; each counts once, however many replicas it has."""
        replicas = len(self._strategy.extended.worker_devices)

        def one() -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            counts = context.replica_id_in_sync_group % replicas == 0
            own = [tf.where(counts, value, tf.zeros_like(value)) for value in values]
            # One all-reduce each: their dtypes differ.
            return [context.all_reduce(tf.distribute.ReduceOp.SUM, value) for value in own]

        sums = self._strategy.run(one)
        return [self._strategy.experimental_local_results(value)[0] for value in sums]


def run_in_workers(config: RuntimeConfig, run: Callable[[], int]) -> int:
    """Calls `run` in this process, which may be one of several workers.

    Args:
        config: Names the workers, together with the environment.
        run: Does the work and returns the exit status.

    Returns:
        The exit status; 1 if the connection to another worker is lost.
    """
    cluster = read_cluster(config)
    if cluster.num_workers == 1:
        return run()
    print(f"waiting for all {cluster.num_workers} workers of {cluster.source}", flush=True)
    try:
        with reporting(cluster):
            return run()
    except CONNECTION_ERRORS as error:
        reason = f"{type(error).__name__}: {error.message.splitlines()[0]:.200}"
        print(
            f"error: a worker is gone or cannot be reached ({reason}). Start all workers again "
            "with the same command: the training goes on from its last checkpoint.",
            file=sys.stderr,
        )
        return 1
