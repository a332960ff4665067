"""The garbage collector before, in and after the import of TensorFlow."""

import subprocess
import sys

import pytest

PROGRAM = """
import gc, sys
from tf_finetune.process import lasting_imports
{before}
with lasting_imports():
    inside = gc.isenabled()
    {imported}
print(inside, gc.isenabled(), gc.get_freeze_count() > 0, "{imported}".split()[-1] in sys.modules)
"""


@pytest.mark.parametrize(
    ("before", "imported", "expected"),
    [
        ("", "import tensorflow", "False True True True"),
        ("import tensorflow", "import keras", "True True False True"),
        ("gc.disable()", "import json", "False False False True"),
    ],
    ids=["first", "already there", "collector off"],
)
def test_only_the_first_import_is_kept_from_the_collector(before, imported, expected):
    program = PROGRAM.format(before=before, imported=imported)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == expected.split()


def test_the_collector_is_on_again_after_a_failed_import():
    program = (
        "import gc\n"
        "from tf_finetune.process import lasting_imports\n"
        "try:\n"
        "    with lasting_imports():\n"
        "        import no_such_module\n"
        "except ImportError:\n"
        "    print(gc.isenabled())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "True\n"
