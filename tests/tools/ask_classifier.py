"""Answers what transformers, sentence-transformers or PEFT compute of an exported classifier.

Reads a JSON object a line: `folder`, `kind` and `texts`, rows of one or two strings; writes one.
"""

import json
import logging
import sys
import warnings
from typing import Any

import torch
import transformers


def sequence_classification(question: dict[str, Any]) -> dict[str, Any]:
    folder, rows = question["folder"], question["texts"]
    model, loaded = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    columns = [list(column) for column in zip(*rows, strict=True)]
    inputs = tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**inputs).logits
    classify = transformers.pipeline("text-classification", folder)
    texts = [row[0] if len(row) == 1 else {"text": row[0], "text_pair": row[1]} for row in rows]
    answers = [classify(text, truncation=True) for text in texts]
    answers = [answer[0] if isinstance(answer, list) else answer for answer in answers]
    return {
        "logits": logits.tolist(),
        "loaded": {name: sorted(map(str, keys)) for name, keys in loaded.items() if keys},
        "labels": [answer["label"] for answer in answers],
        "problem_type": model.config.problem_type,
        "ids": inputs["input_ids"].tolist(),
    }


def sentence_transformers(question: dict[str, Any]) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(question["folder"])
    rows = [row[0] if len(row) == 1 else tuple(row) for row in question["texts"]]
    return {"logits": model.encode(rows).tolist()}


def encoder(question: dict[str, Any]) -> dict[str, Any]:
    model, loaded = transformers.AutoModel.from_pretrained(
        question["folder"], output_loading_info=True
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(question["folder"])
    columns = [list(column) for column in zip(*question["texts"], strict=True)]
    inputs = tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        rows = model.eval()(**inputs).last_hidden_state
    return {
        "first": rows[:, 0].tolist(),
        "loaded": {name: sorted(map(str, keys)) for name, keys in loaded.items() if keys},
    }


def peft(question: dict[str, Any]) -> dict[str, Any]:
    from peft import PeftModel

    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        question["base"], num_labels=question["outputs"]
    )
    model = PeftModel.from_pretrained(base, question["folder"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(question["base"])
    columns = [list(column) for column in zip(*question["texts"], strict=True)]
    inputs = tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return {"logits": model.eval()(**inputs).logits.tolist()}


class Told(logging.Handler):
    """Keeps what the libraries warn of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def main() -> None:
    told = Told()
    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.add_handler(told)
    kinds = {
        "sequence_classification": sequence_classification,
        "sentence_transformers": sentence_transformers,
        "encoder": encoder,
        "peft": peft,
    }
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        question = json.loads(line)
        told.said.clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            answer = kinds[question["kind"]](question)
        said = [*told.said, *(str(w.message) for w in caught if w.category is UserWarning)]
        print(json.dumps({**answer, "warnings": said}), file=answers, flush=True)


if __name__ == "__main__":
    main()
