"""The garbage collector before, in and after the import of TensorFlow."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import gc, sys
from tf_finetune.process import uncollected_imports
{before}
with uncollected_imports({freeze}):
    inside = gc.isenabled()
    {imported}
print(inside, gc.isenabled(), gc.get_freeze_count() > 0, "{imported}".split()[-1] in sys.modules)
"""


@pytest.mark.parametrize(
    ("before", "freeze", "imported", "expected"),
    [
        ("", "freeze=True", "import tensorflow", "False True True True"),
        pytest.param(
            *("", "", "import tensorflow", "False True False True"), marks=pytest.mark.thorough
        ),
        ("import tensorflow", "freeze=True", "import keras", "True True False True"),
        ("gc.disable()", "freeze=True", "import json", "False False False True"),
    ],
    ids=["frozen", "paused", "already there", "collector off"],
)
def test_only_the_first_import_is_kept_from_the_collector(before, freeze, imported, expected):
    program = PROGRAM.format(before=before, freeze=freeze, imported=imported)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == expected.split()


def test_the_collector_is_on_again_after_a_failed_import():
    program = (
        "import gc\n"
        "from tf_finetune.process import uncollected_imports\n"
        "try:\n"
        "    with uncollected_imports():\n"
        "        import no_such_module\n"
        "except ImportError:\n"
        "    print(gc.isenabled())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "True\n"


def test_programs_leave_out_what_keras_imports_for_pictures():
    program = (
        "import sys\n"
        "from tf_finetune.process import set_up_process, uncollected_imports\n"
        "set_up_process()\n"
        "with uncollected_imports(freeze=True):\n"
        "    import keras\n"
        "print('matplotlib' in sys.modules)\n"
        "import sklearn\n"
        "print(keras.ops.ones(2).shape)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n(2,)\n"


def test_public_names_are_imported_with_the_collector_paused_and_onednn():
    program = (
        "import gc, os, tf_finetune\n"
        "collections = []\n"
        "gc.callbacks.append(lambda *_: collections.append(1))\n"
        "tf_finetune.train\n"
        "print(len(collections), gc.isenabled(), os.environ.get('TF_ENABLE_ONEDNN_OPTS'))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"},
    )
    chosen = "1" if platform.machine() in ("x86_64", "AMD64") else None
    assert result.stdout == f"0 True {chosen}\n"
