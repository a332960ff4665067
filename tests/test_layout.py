"""The structure: who imports whom, and what the configs say."""

import ast
from pathlib import Path

import pytest

from tf_finetune.runs.flags import parse_flags

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "tf_finetune"

# Each module imports only from lines above its own; those of one line do not import each other.
ORDER = """
errors process
data.tasks
files
runs.config
runs.flags
runtime.interrupt runs.cluster data.autotuning
runtime.hardware
text.segments text.words data.paths text.fingerprint
data.blocks
text.preprocessor data.records
text.wordpiece data.readers data.labels
text.hub
data.layout
data.columns
data.labelled
data.report data.batches
data.streamed_batches data.tokenized
formats.flat_function models.fused models.precision
models.bert
models.bert_weights
formats.encoder formats.handles
formats.keras_hub formats.huggingface formats.lift formats.saved_model
formats.hub_writer formats.hub
formats.encoders
classification.heads classification.losses
training.optimizer
classification.classifier
training.compile_ahead
training.forward classification.metrics
runtime.workers
training.checkpoints training.progress training.step
training.loop classification.evaluate classification.predict classification.export
classification.summary runs.model_dir
runs.lock
classification.prepare
classification.run
formats.convert
"""


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tf_finetune"):
            module = (node.module or "").removeprefix("tf_finetune").removeprefix(".")
            inner = [f"{module}.{alias.name}".strip(".") for alias in node.names]
            known = [name for name in inner if name in modules()]
            found |= set(known) or ({module} if module else set())
    return found


def test_every_module_has_its_place():
    assert sorted(ORDER.split()) == sorted(modules())


def test_modules_import_only_from_above():
    level = {
        name: number for number, line in enumerate(ORDER.splitlines()) for name in line.split()
    }
    wrong = [
        f"{name} imports {other}"
        for name, path in modules().items()
        for other in imports(path)
        if level[other] >= level[name]
    ]
    assert not wrong


def test_only_the_flags_know_absl():
    users = [name for name, path in modules().items() if "absl" in path.read_text("utf-8")]
    assert users == ["runs.flags"]


def test_the_entry_is_short():
    assert len((REPOSITORY / "run_classifier.py").read_text().splitlines()) < 40


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs").glob("*.cfg")), ids=lambda p: p.stem
)
def test_every_config_parses_and_opens_with_its_command(path):
    assert parse_flags(["x", f"--flagfile={path}"]) is not None
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"run_classifier.py --flagfile=configs/{path.name}" in line for line in header)
