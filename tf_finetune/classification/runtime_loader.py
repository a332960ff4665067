"""The program `classify.py` that is written beside an export for other programs."""

# {session} defines run(features); {needs} are the packages.
LOADER = '''\
"""Answers texts: python classify.py "a text" ["the second text of its pair"]

Needs numpy and {needs}; to import: `answer` and `logits`.
"""

import json
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parent
SETTINGS = json.loads((FOLDER / "classifier.json").read_text(encoding="utf-8"))
_tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
_tokenizer.encode_special_tokens = True  # What a user types is text.
_tokenizer.enable_truncation(SETTINGS["max_seq_length"])
_pad = SETTINGS["pad_token"]
_tokenizer.enable_padding(pad_token=_pad, pad_id=_tokenizer.token_to_id(_pad))
{session}

def logits(rows, batch_size=32):
    """Returns float32 [rows, outputs] of texts, or of pairs of texts."""
    order = sorted(range(len(rows)), key=lambda number: len("".join(rows[number])))
    found = [None] * len(rows)
    for start in range(0, len(rows), batch_size):
        part = order[start : start + batch_size]
        encoded = _tokenizer.encode_batch([rows[number] for number in part])
        features = {
            "input_word_ids": [row.ids for row in encoded],
            "input_mask": [row.attention_mask for row in encoded],
            "input_type_ids": [row.type_ids for row in encoded],
        }
        features = {name: np.array(features[name], np.int32) for name in SETTINGS["inputs"]}
        for number, row in zip(part, run(features)):
            found[number] = row
    return np.array(found, np.float32)


def answer(rows):
    """Returns of each row its label, its labels or its number, and the probabilities."""
    names, numbers = np.array(SETTINGS["label_names"]), logits(rows)
    if SETTINGS["problem_type"] == "regression":
        return [{"score": float(row[0])} for row in numbers]
    if SETTINGS["problem_type"] == "multi_label":
        shares = 1 / (1 + np.exp(-numbers))
        thresholds = np.array(SETTINGS["thresholds"], np.float32)
        labels = [names[row >= thresholds].tolist() for row in shares]
    else:
        numbers = numbers / SETTINGS["temperature"]
        shares = np.exp(numbers - numbers.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        sure = shares.max(axis=1) >= np.float32(SETTINGS["reject_below"])
        labels = np.where(sure, names[shares.argmax(axis=1)], SETTINGS["unsure"]).tolist()
    found = [dict(zip(names.tolist(), row.tolist())) for row in shares]
    return [{"label": label, "probabilities": row} for label, row in zip(labels, found)]


if __name__ == "__main__":
    texts = sys.argv[1:]
    if len(texts) != SETTINGS["num_texts"]:
        sys.exit(f"error: give {SETTINGS['num_texts']} text(s), not {len(texts)}")
    row = texts[0] if len(texts) == 1 else tuple(texts)
    print(json.dumps(answer([row])[0], ensure_ascii=False))
'''
