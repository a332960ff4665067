"""Make a small real set of conversations to learn to chat from.

    python examples/make_chatterbot_chats.py --output_dir=data/chatterbot_chats

Reads the English dialogues of the PyPI package chatterbot-corpus and writes train.jsonl,
validation.jsonl and test.jsonl, one conversation a line: the first message is the user's, the next
the assistant's, and so on. Conversations that begin alike are in one file. Nothing is downloaded,
and the same package gives the same files on every machine.
"""

import argparse
import hashlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

Conversation = list[str]
TEST_SHARE, VALIDATION_SHARE = 0.05, 0.05
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", type=Path, default=Path("data/chatterbot_chats"))
    output_dir = parser.parse_args(argv).output_dir.expanduser()
    # find_spec does not run the package, which would import more than is needed.
    spec = importlib.util.find_spec("chatterbot_corpus")
    if spec is None or not spec.submodule_search_locations:
        print("error: pip install --no-deps chatterbot-corpus", file=sys.stderr)
        return 2
    folder = Path(spec.submodule_search_locations[0]) / "data" / "english"
    splits: dict[str, list[Conversation]] = {"train": [], "validation": [], "test": []}
    for conversation in read_conversations(folder):
        splits[split_of(conversation[0])].append(conversation)
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, part in splits.items():
        lines = [json.dumps({"messages": messages(turns)}, ensure_ascii=False) for turns in part]
        path = output_dir / f"{name}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        print(f"{name:<12}{len(part):>8,} conversations")
    print(f"Written to {output_dir}.")
    return 0


def read_conversations(folder: Path) -> list[Conversation]:
    """Returns every dialogue once, without a last message that has no answer."""
    found: dict[tuple[str, ...], None] = {}
    for path in sorted(folder.glob("*.yml")):
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
        for conversation in content["conversations"]:
            turns = [" ".join(str(message).split()) for message in conversation]
            turns = turns[: len(turns) // 2 * 2]
            if turns and all(turns):
                found.setdefault(tuple(turns))
    return [list(turns) for turns in found]


def split_of(question: str) -> str:
    """Returns the split of all conversations that begin with this message."""
    digest = hashlib.sha256(question.casefold().encode()).digest()
    place = int.from_bytes(digest[:4], "big") / 2**32
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


def messages(turns: Conversation) -> list[dict[str, str]]:
    """Returns the turns as messages: the user's and the assistant's in turn."""
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)]


if __name__ == "__main__":
    sys.exit(main())
