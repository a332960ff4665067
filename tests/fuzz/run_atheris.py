"""Fuzzes one target, led by coverage: `python run_atheris.py <target> -runs=N`."""

import sys

import atheris

with atheris.instrument_imports(include=["tf_finetune"]):
    import targets

name = sys.argv.pop(1)
atheris.Setup(sys.argv, lambda data: targets.check(name, data))
atheris.Fuzz()
