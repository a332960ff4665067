"""Fine-tune a text classifier: `python run_classifier.py --flagfile=configs/quickstart.cfg`."""

import sys

from tf_finetune.classification.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
