"""What transformers and PEFT say of directories, for tests/formats/test_transformers.py.

    python tests/tools/ask_transformers.py < questions > answers

A question is a line of JSON: `model`, the directory; `ids`, token ids; perhaps `adapter`, a
directory that PEFT loads, or `make_adapter`, one in which it saves a new, random adapter. So is an
answer: `logits`; `text`, a message as the chat template renders it; `ends`, the stop ids; and
`warnings`, all that was logged or warned on the way.
"""

import json
import logging
import sys
import warnings
from typing import Any

import peft
import torch
import transformers


def with_adapter(model: Any, question: dict[str, Any]) -> Any:
    """Returns the model with the adapter of a directory, or with a new one that is saved there."""
    if "adapter" in question:
        return peft.PeftModel.from_pretrained(model, question["adapter"])
    config = peft.LoraConfig(
        **{"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": "all-linear"},
        task_type="CAUSAL_LM",
    )
    tuned = peft.get_peft_model(model, config)
    torch.manual_seed(0)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    tuned.save_pretrained(question["make_adapter"])
    return tuned


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Returns what the libraries say of one directory."""
    directory = question["model"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype="float32")
    if not {"adapter", "make_adapter"}.isdisjoint(question):
        model = with_adapter(model, question)
    with torch.no_grad():
        logits = model.eval()(torch.tensor([question["ids"]])).logits[0]
    message = {"role": "user", "content": "Hi"}
    return {
        "logits": logits.tolist(),
        "text": tokenizer.apply_chat_template([message], tokenize=False),
        "ends": model.generation_config.eos_token_id,
    }


def main() -> None:
    """Answers all questions."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    transformers.utils.logging.get_logger("transformers").addHandler(handler)
    transformers.utils.logging.disable_progress_bar()
    for line in sys.stdin:
        said.clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = answer(json.loads(line))
        # Others are of the libraries' own code, not of what they read.
        said += [str(w.message) for w in caught if w.category is UserWarning]
        print(json.dumps(found | {"warnings": said}), flush=True)


if __name__ == "__main__":
    main()
