"""Makes a TF Hub encoder and its preprocessor of a BERT in Hugging Face's or Google's format.

    python -m tf_finetune.formats.convert --hf_dir=... --output_dir=...

`--hf_dir` is the directory with the configuration, weights and vocabulary, or
`package:<python module>`. Writes the SavedModels `encoder` and `preprocessor` under `--output_dir`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tf_finetune.errors import UserError
from tf_finetune.runs.paths import expand_path


def export_hub_encoder(hf_dir: str, output_dir: str | os.PathLike[str]) -> None:
    """Writes `encoder` and `preprocessor` SavedModels of a BERT of Hugging Face's or Google's.

    Args:
        hf_dir: The BERT's directory, or `package:<python module>`.
        output_dir: Where to write: a new or an empty directory.

    Raises:
        UserError: `hf_dir` is not a BERT, or `output_dir` exists and is not empty.
    """
    output = Path(expand_path(output_dir, "--output_dir"))
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(
            f"--output_dir={output_dir} is there and not empty. Remove it or choose another."
        )
    # Import TensorFlow here, so that --help and the check above answer at once.
    from tf_finetune.formats.encoders import load_encoder
    from tf_finetune.formats.hub_writer import save_hub_encoder

    save_hub_encoder(load_encoder(expand_path(hf_dir, "--hf_dir"), mode="native"), output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: The command line after the program's name; None: the process' own.

    Returns:
        The exit status: 0, or 2 for bad input.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tf_finetune.formats.convert", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--hf_dir",
        required=True,
        help="folder of a BERT of Hugging Face's or Google's, or package:<python module>",
    )
    parser.add_argument("--output_dir", required=True, help="folder to write; must not exist yet")
    options = parser.parse_args(arguments)
    try:
        export_hub_encoder(options.hf_dir, options.output_dir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.output_dir}/encoder and {options.output_dir}/preprocessor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
