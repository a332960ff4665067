"""Reads from the environment which worker this process is. Standard library only."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from tf_finetune.errors import UserError
from tf_finetune.runs.config import RuntimeConfig


@dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Attributes:
        source: Names the workers: `TF_CONFIG` or `Slurm`; empty for a single process.
        num_workers: The number of workers.
        index: This process' number; worker 0, the chief, writes the model directory.
    """

    source: str = ""
    num_workers: int = 1
    index: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the results."""
        return self.index == 0


def read_cluster(config: RuntimeConfig) -> Cluster:
    """Reads the cluster from `TF_CONFIG`, or from the variables of a Slurm step (`srun`).

    Args:
        config: With a `tpu`, or a `distribution_strategy` other than `auto` and `multi_worker`, the
            environment is not read and the process is single.

    Returns:
        The cluster.

    Raises:
        UserError: `TF_CONFIG` cannot be read.
    """
    if config.distribution_strategy not in ("auto", "multi_worker") or config.tpu:
        return Cluster()
    if text := os.environ.get("TF_CONFIG"):
        try:
            task_config = json.loads(text)
            jobs = task_config.get("cluster", {})
            chiefs, workers = (len(jobs.get(job, ())) for job in ("chief", "worker"))
            if not chiefs + workers:
                return Cluster()
            task = task_config["task"]
            index = int(task["index"]) + (chiefs if task["type"] == "worker" else 0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"The environment variable TF_CONFIG is {text!r:.200}, which cannot be read "
                f"({error!r}). It must look like {EXAMPLE}, with another index on each worker."
            ) from None
        if task["type"] not in ("chief", "worker") or not 0 <= index < chiefs + workers:
            raise UserError(
                f"The environment variable TF_CONFIG says that this is {task['type']} "
                f"{task['index']}; the cluster has {chiefs} chiefs and {workers} workers."
            )
        return Cluster("TF_CONFIG", chiefs + workers, index)
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1:
        return Cluster("Slurm", tasks, int(os.environ["SLURM_PROCID"]))
    return Cluster()


EXAMPLE = '{"cluster": {"worker": ["a:9000", "b:9000"]}, "task": {"type": "worker", "index": 0}}'


@contextlib.contextmanager
def reporting(cluster: Cluster) -> Iterator[None]:
    """Silences the standard output of all workers but the chief: all print the same."""
    with contextlib.ExitStack() as stack:
        if not cluster.is_chief:
            print(f"worker {cluster.index} of {cluster.num_workers}; worker 0 reports", flush=True)
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield
