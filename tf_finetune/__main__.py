"""`python -m tf_finetune` lists the commands."""

import importlib

# Each is on the PATH after `pip install`, and `python -m <module>` runs it anywhere.
COMMANDS = {
    "run_classifier": "tf_finetune.classification.command",
    "compare_runs": "tf_finetune.experiments.compare",
    "export_hub_encoder": "tf_finetune.formats.convert",
}


def main() -> None:
    """Prints each command with the module that runs it and what it does."""
    for name, module in COMMANDS.items():
        doc = importlib.import_module(module).__doc__ or ""
        print(f"{name:<20} {doc.splitlines()[0]}\n{'':<20} python -m {module}")


if __name__ == "__main__":
    main()
