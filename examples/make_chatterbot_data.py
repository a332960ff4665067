"""Make a small real data set: which topic does a chat message belong to?

    python examples/make_chatterbot_data.py --output_dir=data/chatterbot

Reads the English dialogues of the PyPI package chatterbot-corpus, one file a topic, and writes
train.tsv, validation.tsv and test.tsv with the columns text and topic. Nothing is downloaded, and
the same package gives the same files on every machine.
"""

import argparse
import hashlib
import importlib.util
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import yaml

Row = tuple[str, str]
VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", type=Path, default=Path("data/chatterbot"))
    parser.add_argument("--min_rows", type=int, default=40, help="leave out smaller topics")
    arguments = parser.parse_args(argv)
    output_dir = arguments.output_dir.expanduser()
    # find_spec does not run the package, which would import more than is needed.
    spec = importlib.util.find_spec("chatterbot_corpus")
    if spec is None or not spec.submodule_search_locations:
        print("error: pip install --no-deps chatterbot-corpus", file=sys.stderr)
        return 2
    folder = Path(spec.submodule_search_locations[0]) / "data" / "english"
    rows = keep_big_topics(drop_duplicates(read_messages(folder)), arguments.min_rows)
    splits = split_rows(rows)
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, part in splits.items():
        lines = ["text\ttopic", *(f"{text}\t{topic}" for text, topic in part)]
        path = output_dir / f"{name}.tsv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    print(describe(splits))
    print(f"Written to {output_dir}.")
    return 0


def read_messages(folder: Path) -> list[Row]:
    """Returns every message of every dialogue with its file's first category."""
    rows = []
    for path in sorted(folder.glob("*.yml")):
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
        topic = str(content["categories"][0])
        for conversation in content["conversations"]:
            # White space is joined up, because a .tsv cell holds neither tabs nor line ends.
            rows += [(" ".join(str(message).split()), topic) for message in conversation]
    return rows


def drop_duplicates(rows: Sequence[Row]) -> list[Row]:
    """Keeps one of equal messages, none if they stand under several topics; case is ignored."""
    topics: dict[str, set[str]] = defaultdict(set)
    first: dict[str, Row] = {}
    for text, topic in rows:
        topics[text.casefold()].add(topic)
        first.setdefault(text.casefold(), (text, topic))
    return [row for key, row in first.items() if key and len(topics[key]) == 1]


def keep_big_topics(rows: Sequence[Row], min_rows: int) -> list[Row]:
    """Leaves out topics with fewer rows."""
    sizes = Counter(topic for _, topic in rows)
    return [(text, topic) for text, topic in rows if sizes[topic] >= min_rows]


def split_rows(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Splits each topic alike, in an order that depends on the texts alone."""
    ordered = sorted(rows, key=lambda row: hashlib.sha256(row[0].encode()).digest())
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    sizes = Counter(topic for _, topic in rows)
    placed: Counter[str] = Counter()
    for text, topic in ordered:
        test_end = round(TEST_SHARE * sizes[topic])
        validation_end = test_end + round(VALIDATION_SHARE * sizes[topic])
        place = placed[topic]
        placed[topic] += 1
        split = "test" if place < test_end else "validation" if place < validation_end else "train"
        splits[split].append((text, topic))
    return splits


def describe(splits: dict[str, list[Row]]) -> str:
    """Returns a table of the rows of each topic in each split."""
    counts = {name: Counter(topic for _, topic in part) for name, part in splits.items()}
    lines = [f"{'topic':<16}" + "".join(f"{name:>12}" for name in splits)]
    for topic, _ in counts["train"].most_common():
        lines.append(f"{topic:<16}" + "".join(f"{counts[name][topic]:>12,}" for name in splits))
    totals = (f"{sum(count.values()):>12,}" for count in counts.values())
    return "\n".join([*lines, f"{'all':<16}" + "".join(totals)])


if __name__ == "__main__":
    sys.exit(main())
