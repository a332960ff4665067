"""Makes tests/generation/preferences.npz: what TRL's DPOTrainer says of four preferences.

    .venv-bench/bin/python tests/tools/make_preferences.py

Needs torch, transformers and TRL, which the tests do not. The model is the tiny `llama` of
tests/formats/language_models, the reference the same with noise on its weights. The file holds the
pairs as TRL cuts them into tokens (`ids`, `attended` and `answered`, the chosen ones first), the
log-probabilities of both models (`log_probabilities`, `reference`, columns chosen and rejected),
`beta`, the loss, what TRL logs, and the norms of the gradient: of all weights, and of the
embeddings alone.
"""

import json
import tempfile
from pathlib import Path

import datasets
import numpy as np
import torch
import transformers
import trl

TESTS = Path(__file__).resolve().parents[1]
BETA = 0.3
LOGGED = ("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected")


def main() -> None:
    """Writes the file."""
    directory = TESTS / "formats" / "language_models" / "llama"
    rows = json.loads((TESTS / "generation" / "preferences.json").read_text())
    model, reference = (
        transformers.AutoModelForCausalLM.from_pretrained(directory, dtype="float32")
        for _ in range(2)
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += torch.randn_like(parameter) * 0.05
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.DPOTrainer(
            model,
            ref_model=reference,
            args=trl.DPOConfig(
                folder,
                beta=BETA,
                bf16=False,
                use_cpu=True,
                gradient_checkpointing=False,
                per_device_train_batch_size=len(rows),
                report_to="none",
            ),
            processing_class=transformers.AutoTokenizer.from_pretrained(directory),
            train_dataset=datasets.Dataset.from_list(rows),
        )
        # In the order of the rows, which the loader of a training would shuffle.
        batch = trainer.data_collator([trainer.train_dataset[n] for n in range(len(rows))])
        model.train()
        loss = trainer.compute_loss(model, batch)
        loss.backward()
        scores = [trainer.compute_ref_log_probs(of, batch) for of in (model, reference)]
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norms = [g.norm() for g in gradients.values()]
    logged = trainer._metrics["train"]
    found = {
        "ids": batch["input_ids"],
        "attended": batch["attention_mask"],
        "answered": batch["completion_mask"],
        "log_probabilities": torch.stack(scores[0], dim=1),
        "reference": torch.stack(scores[1], dim=1),
        "beta": BETA,
        "loss": loss.item(),
        "gradient_norm": torch.stack(norms).norm(),
        "embedding_norm": gradients["model.embed_tokens.weight"].norm(),
        **{name: logged[name][0] for name in (*LOGGED, "logps/chosen", "logps/rejected")},
    }
    arrays = {name.replace("/", "_"): np.asarray(value) for name, value in found.items()}
    np.savez_compressed(TESTS / "generation" / "preferences.npz", **arrays)
    print({name: value for name, value in arrays.items() if value.ndim < 2})


if __name__ == "__main__":
    main()
