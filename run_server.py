"""Serve OpenAI's fine-tuning API: `python run_server.py --data_dir=server --models=name=handle`."""

import sys

from tf_finetune.server.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
