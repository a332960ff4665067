"""Fine-tune a language model: `python run_generator.py --flagfile=configs/chat_quickstart.cfg`."""

import sys

from tf_finetune.generation.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
