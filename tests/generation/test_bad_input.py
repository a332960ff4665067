"""What cannot be trained on: the command ends with 2 and says what, where, and what to do."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import run_generator
from tests.data.dialogue_files import assistant, system, user
from tests.generation.conftest import MODELS as LANGUAGE_MODELS
from tests.generation.conftest import day_rows, write_lines
from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.peft import write_adapter
from tf_finetune.generation.memory import free_memory
from tf_finetune.models.lora import Lora

LAYER = "model.layers.1.mlp.up_proj.weight"
CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}


def complaint(folder: Path, capsys: Any, *flags: str) -> str:
    """Trains with the base and the rows of a folder, and returns why that is refused."""
    command = [
        "run_generator.py",
        f"--model={folder / 'base'}",
        f"--train_file={folder / 'train.jsonl'}",
        f"--model_dir={folder / 'out'}",
        *("--do_train", "--max_steps=1", "--train_batch_size=2", "--precision=float32"),
        *flags,
    ]
    capsys.readouterr()
    assert run_generator.main(command) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("error: ") == 1
    assert "Traceback" not in said and "UserError" not in said
    # What is refused leaves no checkpoint that a later run would go on from.
    assert not (folder / "out" / "checkpoints").exists()
    return said


def assert_says(said: str, parts: Sequence[str], folder: Path) -> None:
    for part in parts:
        assert part.replace("{}", str(folder)) in said


@pytest.fixture
def folder(tiny_llama, tmp_path) -> Path:
    shutil.copytree(tiny_llama, tmp_path / "base")
    write_lines(tmp_path / "train.jsonl", day_rows(4))
    return tmp_path


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def in_parts(base: Path) -> list[Path]:
    """Writes a base's weights in two files, with their index."""
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    parts = [base / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, part in enumerate(parts):
        save_file(dict(list(tensors.items())[number::2]), part)
    places = {name: parts[number % 2].name for number, name in enumerate(tensors)}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return parts


def not_a_number(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors[LAYER][3, 5] = np.nan
    save_file(tensors, base / "model.safetensors")


Spoil = Callable[[Path], Any]
FAMILIES = "Models that can be read: llama, mistral, qwen2, qwen3, smollm3, gpt2."
MODELS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "images": (
        lambda base: change(base / "config.json", model_type="llava", vision_config={}),
        ("--model={}/base: its config.json has model_type='llava', a model of images", FAMILIES),
    ),
    "family": (
        lambda base: change(base / "config.json", model_type="mamba"),
        ("--model={}/base: its config.json has model_type='mamba', a family that is", FAMILIES),
    ),
    "rope": (
        lambda base: change(
            base / "config.json", rope_scaling={"rope_type": "yarn", "factor": 4.0}
        ),
        (
            "--model={}/base: its config.json has rope_scaling of type 'yarn'; only default, ",
            "remove the key",
        ),
    ),
    "no tokenizer": (
        lambda base: (base / "tokenizer.json").unlink(),
        ("--model={}/base: {}/base/tokenizer.json is missing", "Copy it from where the model"),
    ),
    "damaged tokenizer": (
        lambda base: cut(base / "tokenizer.json"),
        ("--model={}/base: {}/base/tokenizer.json: the tokenizer.json is no JSON", "Copy tok"),
    ),
    "missing part": (
        lambda base: in_parts(base)[1].unlink(),
        ("index.json names model-00002-of-00002.safetensors, which is missing (1 of 2", "Fetch it"),
    ),
    "damaged part": (
        lambda base: cut(in_parts(base)[1]),
        ("{}/base/model-00002-of-00002.safetensors is damaged: ", "or fetch it again."),
    ),
    "nan": (
        not_a_number,
        (f"--model={{}}/base: tensor {LAYER} has 1 of 1536 values that are NaN", "an earlier one"),
    ),
}


@pytest.mark.parametrize(("spoil", "parts"), MODELS.values(), ids=MODELS)
def test_models(folder, capsys, spoil, parts):
    spoil(folder / "base")
    assert_says(complaint(folder, capsys), parts, folder)


def test_an_encoder_is_sent_to_the_other_command(folder, tiny_bert_dir, capsys):
    said = complaint(folder, capsys, f"--model={tiny_bert_dir}")
    expected = ("model_type='bert', an encoder", "run_classifier.py --encoder", FAMILIES)
    assert_says(said, (f"--model={tiny_bert_dir}: ", *expected), folder)


def test_a_model_that_is_too_large_is_told_before_it_is_loaded(folder, capsys):
    """Its configuration asks for more than its file holds: nothing has looked at that yet."""
    config = json.loads((folder / "base" / "config.json").read_text())
    sizes = [decoder_config(config | {"num_hidden_layers": n}, "").num_weights for n in (1, 2)]
    weights = (free_memory() or 2**34) // 8
    layers = weights // (sizes[1] - sizes[0])
    change(folder / "base" / "config.json", num_hidden_layers=layers)
    said = complaint(folder, capsys, "--lora_rank=0")
    assert_says(said, ("--model={}/base: to train all ", "GiB, 16 bytes each"), folder)
    assert re.search(r"free are [\d,.]+ GiB\. What fits: adapters \(--lora_rank=16\), with", said)
    change(folder / "base" / "config.json", num_hidden_layers=4 * layers)
    said = complaint(folder, capsys)
    assert re.search(r"for the frozen .* What fits: a model of up to [\d,]+ million weights", said)


def test_targets_that_match_nothing(folder, capsys):
    said = complaint(folder, capsys, "--lora_targets=query,v_proj")
    layers = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    expected = ("--lora_targets: --model={}/base has no linear layer query. ", layers, "leave the")
    assert_says(said, expected, folder)


def test_an_adapter_of_another_base(folder, capsys):
    factors = {
        f"model.layers.{n}.self_attn.q_proj": (np.zeros((32, 4)), np.ones((4, 32)))
        for n in range(7)
    }
    write_adapter(folder / "adapter", Lora(4, 8.0), factors, base="org/larger")
    said = complaint(folder, capsys, f"--adapter={folder / 'adapter'}")
    expected = "{}/adapter: an adapter for another model: this one has no module model.layers.3."
    assert_says(said, (expected, "It was trained on 'org/larger'; give that model"), folder)


ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
OTHER = "give another template with --chat_template=<file>"
TEMPLATES: dict[str, tuple[str, list[Any], tuple[str, ...]]] = {
    "roles that do not alternate": (
        ALTERNATE,
        [user("a"), user("b"), assistant("c")],
        ("{}/train.jsonl:5: the chat template fails: roles must alternate", OTHER),
    ),
    "no system role": (
        ALTERNATE.replace("roles must alternate user/assistant", "System role not supported"),
        [system("a"), user("b"), assistant("c")],
        ("{}/train.jsonl:5: the chat template fails: System role not supported", OTHER),
    ),
    "endless": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        [user("a"), assistant("b")],
        ("the chat template fails: it takes more than 3 seconds", OTHER),
    ),
    "files": (
        "{% include '/etc/passwd' %}",
        [user("a"), assistant("b")],
        ("the chat template fails: ", OTHER),
    ),
    "python": (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        [user("a"), assistant("b")],
        ("the chat template fails: access to attribute '__class__'", "unsafe", OTHER),
    ),
}


@pytest.mark.parametrize(("source", "messages", "parts"), TEMPLATES.values(), ids=TEMPLATES)
def test_templates(folder, capsys, source, messages, parts):
    write_lines(folder / "train.jsonl", [*day_rows(4), {"messages": messages}])
    (folder / "base" / "chat_template.jinja").write_text(source)
    assert_says(complaint(folder, capsys), parts, folder)


def calls(**more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{**CALL, **more}]}


ROWS: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    "unknown role": (
        [user("a"), {"role": "bot", "content": "b"}],
        ("messages[1].role is 'bot'; the roles are system, developer, user, assistant, tool",),
    ),
    "empty": ([], ("messages is empty. Give the turns of the conversation, or remove",)),
    "no answer": ([user("a")], ("messages: no turn of the assistant, so there is nothing to",)),
    "last turn": (
        [user("a"), assistant("b"), user("c")],
        ("messages[2]: the last turn is of the user, and nothing answers it. Add the answer, or",),
    ),
    "call without an id": (
        [user("a"), calls(), {"role": "tool", "tool_call_id": "7", "content": "b"}, assistant("c")],
        ("messages[1].tool_calls[0] has no 'id'", "tool_call_id='7'. Give the call this id."),
    ),
}


@pytest.mark.parametrize("streaming", ["false", "true"])
@pytest.mark.parametrize(("messages", "parts"), ROWS.values(), ids=ROWS)
def test_rows(folder, capsys, messages, parts, streaming):
    path = write_lines(folder / "train.jsonl", day_rows(4))
    # Nobody counts the lines of a file that is streamed.
    place = f"byte {path.stat().st_size}" if streaming == "true" else "5"
    write_lines(path, [*day_rows(4), {"messages": messages}])
    said = complaint(folder, capsys, f"--streaming={streaming}")
    assert_says(said, (f"{{}}/train.jsonl:{place}: ", *parts), folder)


def test_a_prompt_that_is_longer_than_the_context(folder, capsys):
    """It is found before the training."""
    rows = [*day_rows(2), {"messages": [user("x" * 130), assistant("b")]}]
    write_lines(folder / "test.jsonl", rows)
    flags = (f"--test_file={folder / 'test.jsonl'}", "--do_predict", "--max_new_tokens=8")
    said = complaint(folder, capsys, *flags)
    expected = "{}/test.jsonl:3: A prompt of 147 tokens and an answer of --max_new_tokens=8 are "
    rest = ("more than the 128 tokens that the model was made for.", "Shorten the prompt, or allow")
    assert_says(said, (expected, *rest), folder)


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_rows_that_are_longer_than_the_context_are_cut_there(folder, capsys, streaming):
    """GPT-2 has no embeddings for the positions after them."""
    rows = [{"messages": [user("x" * size), assistant("b")]} for size in (5, 200, 9, 100)]
    write_lines(folder / "train.jsonl", rows)
    command = ["run_generator.py", f"--model={LANGUAGE_MODELS / 'gpt2'}", "--do_train"]
    command += [f"--train_file={folder / 'train.jsonl'}", f"--model_dir={folder / 'out'}"]
    command += ["--max_steps=2", "--train_batch_size=2", f"--streaming={streaming}"]
    assert run_generator.main(command) == 0
    expected = "warning: --max_seq_length=1024: the model was made for 64 tokens, where longer rows"
    assert expected in capsys.readouterr().err


def test_a_chat_without_a_terminal(folder, capsys):
    command = ["run_generator.py", f"--model={folder / 'base'}", "--interactive"]
    assert run_generator.main(command) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --interactive needs a terminal.")
    assert "--do_predict --test_file=<file>" in said
