import json

import pytest
import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.runs.cluster import EXAMPLE, Cluster, read_cluster, reporting
from tf_finetune.runs.config import RuntimeConfig
from tf_finetune.runtime.hardware import _slurm_resolver

WORKERS = {"worker": ["a:1", "b:1"]}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("config", "cluster"),
    [
        ({}, Cluster()),
        ({"cluster": {}}, Cluster()),
        (
            {"cluster": WORKERS, "task": {"type": "worker", "index": 1}},
            Cluster("TF_CONFIG", 2, 1),
        ),
        (
            {"cluster": {"chief": ["c:1"], **WORKERS}, "task": {"type": "worker", "index": 0}},
            Cluster("TF_CONFIG", 3, 1),
        ),
        (
            {"cluster": {"chief": ["c:1"], **WORKERS}, "task": {"type": "chief", "index": 0}},
            Cluster("TF_CONFIG", 3, 0),
        ),
    ],
)
def test_tf_config_names_the_workers(monkeypatch, config, cluster):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert read_cluster(RuntimeConfig()) == cluster


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "which cannot be read"),
        ("[]", "which cannot be read"),
        (json.dumps({"cluster": WORKERS}), "KeyError"),
        (json.dumps({"cluster": WORKERS, "task": {"type": "worker", "index": "x"}}), "ValueError"),
        (json.dumps({"cluster": WORKERS, "task": {"type": "worker", "index": 2}}), "2 workers"),
        (json.dumps({"cluster": WORKERS, "task": {"type": "evaluator", "index": 0}}), "evaluator"),
    ],
)
def test_a_tf_config_that_cannot_be_is_shown(monkeypatch, text, complaint):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=f"TF_CONFIG.*{complaint}"):
        read_cluster(RuntimeConfig())


def test_a_slurm_step_of_several_tasks(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert read_cluster(RuntimeConfig()) == Cluster()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "5")
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "n[08-09],big")
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "2(x2),1")
    monkeypatch.setenv("SLURM_JOB_ID", "40007")
    cluster = read_cluster(RuntimeConfig())
    assert cluster == Cluster("Slurm", 5, 3) and not cluster.is_chief
    resolver = _slurm_resolver(cluster, num_gpus=0)
    assert resolver.cluster_spec() == tf.train.ClusterSpec(
        {"worker": ["n08:12014", "n08:12015", "n09:12014", "n09:12015", "big:12014"]}
    )
    assert (resolver.task_type, resolver.task_id) == ("worker", 3)


def test_the_chief_alone_reports(monkeypatch, capsys):
    for index in range(2):
        task = {"cluster": WORKERS, "task": {"type": "worker", "index": index}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(task))
        with reporting(read_cluster(RuntimeConfig())):
            print("a result")
    assert capsys.readouterr().out == "a result\nworker 1 of 2; worker 0 reports\n"


@pytest.mark.parametrize(
    ("strategy", "tpu", "workers"),
    [("auto", None, 2), ("multi_worker", None, 2), ("one_device", None, 1), ("auto", "local", 1)],
)
def test_other_strategies_are_alone(monkeypatch, strategy, tpu, workers):
    monkeypatch.setenv("TF_CONFIG", EXAMPLE)
    assert (
        read_cluster(RuntimeConfig(distribution_strategy=strategy, tpu=tpu)).num_workers == workers
    )
