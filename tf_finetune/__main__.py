"""`python -m tf_finetune` lists the commands, `python -m tf_finetune <command> ...` runs one."""

import difflib
import importlib
import sys

# Each is on the PATH after `pip install`, and `python -m <module>` runs it anywhere.
COMMANDS = {
    "run_classifier": "tf_finetune.classification.command",
    "run_generator": "tf_finetune.generation.command",
    "run_server": "tf_finetune.server.command",
    "compare": "tf_finetune.experiments.compare",
    "estimate": "tf_finetune.experiments.estimate",
    "sweep": "tf_finetune.experiments.sweep",
    "report": "tf_finetune.experiments.report",
    "export_hub_encoder": "tf_finetune.formats.convert",
}


def main() -> int:
    """Runs the command that the first argument names; without one, lists them all.

    Returns:
        The command's exit status; 0 for the list, 2 for a command that there is not.
    """
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        sys.argv = [name, *arguments]
        return int(importlib.import_module(COMMANDS[name]).main())
    if name in ("--help", "-h", "help"):
        for name, module in COMMANDS.items():
            doc = importlib.import_module(module).__doc__ or ""
            print(f"{name:<20} {doc.splitlines()[0]}\n{'':<20} python -m {module}")
        return 0
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    print(
        f"error: {name}: no such command. {hint}There are {', '.join(COMMANDS)}, as in "
        "python -m tf_finetune run_classifier --help.",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
