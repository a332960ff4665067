"""What the workers of a strategy tell each other beside the gradients."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# The longest JSON object that the chief tells the others, in bytes.
STATE_BYTES = 8192


class Workers:
    """The processes of a strategy; all of them must ask the same at the same time.

    Nothing is told through files: to train, the workers need no file system in common.

    Args:
        strategy: Alone on its machine, whatever it is but `MultiWorkerMirroredStrategy`.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self.are_several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        # The chief writes checkpoints and results.
        self.is_chief = bool(strategy.extended.should_checkpoint)
        self._sum_of_one = tf.function(self._sum)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any of the workers."""
        if not self.are_several:
            return flag
        (total,) = self._sum_of_one([tf.constant(int(flag))])
        return bool(total > 0)

    def share_variables(self, variables: Sequence[tf.Variable]) -> None:
        """Gives all workers the chief's values, bit for bit."""
        if not self.are_several:
            return
        values = [tf.convert_to_tensor(variable) for variable in variables]
        for variable, value in zip(variables, self._from_chief(values), strict=True):
            variable.assign(value)

    def share_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Returns the chief's JSON object."""
        if not self.are_several:
            return state
        text = json.dumps(state).encode()
        padded = np.zeros(STATE_BYTES, np.int32)
        padded[: len(text)] = list(text)
        (shared,) = self._from_chief([tf.constant(padded)])
        return json.loads(bytes(shared.numpy().astype(np.uint8)).rstrip(b"\0"))

    def wait(self) -> None:
        """Returns when all workers are here."""
        self.any(False)

    def _from_chief(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        # Sums are not made for every type: the seeds of dropout are unsigned.
        sums = [tf.cast(v, tf.int64) if v.dtype in (tf.uint32, tf.bool) else v for v in values]
        # Everyone else adds nothing.
        own = sums if self.is_chief else [tf.zeros_like(value) for value in sums]
        shared = tf.function(self._sum)(own)
        return [tf.cast(s, value.dtype) for s, value in zip(shared, values, strict=True)]

    def _sum(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Adds up tensors over the workers; each worker counts once, whatever its replicas."""
        replicas = len(self._strategy.extended.worker_devices)

        def one() -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            counts = context.replica_id_in_sync_group % replicas == 0
            own = [tf.where(counts, value, tf.zeros_like(value)) for value in values]
            # One by one: they differ in type.
            return [context.all_reduce(tf.distribute.ReduceOp.SUM, value) for value in own]

        sums = self._strategy.run(one)
        return [self._strategy.experimental_local_results(value)[0] for value in sums]
