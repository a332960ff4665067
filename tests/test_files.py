"""Files of this machine and remote ones, whole or not at all; a run that has nothing but these."""

import gzip
import json
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_finetune import files
from tf_finetune.data.blocks import read_block, split_files
from tf_finetune.data.paths import find_files
from tf_finetune.data.readers import read_file
from tf_finetune.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    """A folder that is not there yet, here or in TensorFlow's file system in memory."""
    if request.param == "local":
        yield str(tmp_path / "folder")
    else:
        yield f"ram://{tmp_path}/folder"
        if tf.io.gfile.exists(f"ram://{tmp_path}/folder"):
            tf.io.gfile.rmtree(f"ram://{tmp_path}/folder")


def test_a_file_is_written_whole_or_not_at_all(folder):
    path = f"{folder}/below/a.txt"
    files.write_text_atomic(path, "first\n")
    assert files.read_bytes(path) == b"first\n" and files.file_size(path) == 6
    with pytest.raises(RuntimeError), files.replaced_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert files.read_bytes(path) == b"first\n"
    files.write_text_atomic(path, "")
    assert files.read_bytes(path) == b""
    files.write_text_atomic(path, "second é")
    assert files.read_bytes(path).decode() == "second é"
    assert files.list_dir(f"{folder}/below") == ["a.txt"]


def test_a_folder_takes_the_place_of_another(folder):
    for number in (1, 2):
        with files.replaced_directory(f"{folder}/export") as target:
            (target / "assets").mkdir()
            (target / "assets" / f"{number}.txt").write_text("a")
            (target / "saved_model.pb").write_text(str(number))
    assert files.read_bytes(f"{folder}/export/saved_model.pb") == b"2"
    assert files.list_dir(f"{folder}/export/assets") == ["2.txt"]
    with pytest.raises(RuntimeError), files.replaced_directory(f"{folder}/export") as target:
        (target / "saved_model.pb").write_text("3")
        raise RuntimeError
    assert files.read_bytes(f"{folder}/export/saved_model.pb") == b"2"
    assert files.list_dir(folder) == ["export"]


def test_what_is_there(folder):
    assert not files.exists(folder) and files.list_dir(folder) == []
    files.remove(folder)
    for name in ("b.tsv", "a.tsv", "c.txt", "d.tsv/e.tsv"):
        files.write_text_atomic(f"{folder}/{name}", "x")
    assert files.is_dir(folder) and not files.is_file(folder)
    assert files.is_file(f"{folder}/a.tsv") and not files.is_dir(f"{folder}/a.tsv")
    assert files.glob_files(f"{folder}/*.tsv") == [f"{folder}/a.tsv", f"{folder}/b.tsv"]
    files.remove(f"{folder}/d.tsv")
    files.remove(f"{folder}/a.tsv")
    assert files.list_dir(folder) == ["b.tsv", "c.txt"]
    with pytest.raises(FileNotFoundError):
        files.read_bytes(f"{folder}/a.tsv")


def test_every_reader_reads_from_everywhere(folder):
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(1000)]
    lines = [f"{row['text']}\t{row['label']}" for row in rows]
    tsv = "\n".join(["text\tlabel", *lines]) + "\n"
    files.write_text_atomic(f"{folder}/rows.tsv", tsv)
    with files.replaced_file(f"{folder}/rows.tsv.gz") as file:
        file.write(gzip.compress(tsv.encode()))
    files.write_text_atomic(f"{folder}/rows.jsonl", "\n".join(map(json.dumps, rows)))
    import pyarrow
    import pyarrow.parquet

    with files.replaced_file(f"{folder}/rows.parquet") as file:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    for name in ("rows.tsv", "rows.tsv.gz", "rows.jsonl", "rows.parquet"):
        found = [row for _, row in read_file(f"{folder}/{name}")]
        assert [(row["text"], int(row["label"])) for row in found] == [
            (row["text"], row["label"]) for row in rows
        ]
    blocks = split_files([f"{folder}/rows.jsonl"], 1000)
    # What is far away is fetched in larger blocks.
    assert len(blocks) == (1 if files.is_remote(folder) else 33)
    assert [json.loads(row.data) for block in blocks for row in read_block(block)] == rows
    with pytest.raises(UserError, match=r"Did you mean rows\.tsv"):
        find_files(f"{folder}/row.tsv")
    with pytest.raises(UserError, match=r"folder .*nowhere does not exist"):
        find_files(f"{folder}/nowhere/row.tsv")


def test_an_array_is_written_and_read(folder):
    with files.replaced_file(f"{folder}/a.npz") as file:
        np.savez(file, a=np.arange(10_000), b=np.ones(3))
    with files.open_file(f"{folder}/a.npz") as file, np.load(file) as arrays:
        assert arrays["a"].tolist() == list(range(10_000))


def test_a_result_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "usual").write_text("")
    files.write_text_atomic(tmp_path / "ours", "")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "ours")]
    assert modes[0] == modes[1]


# In one process, with whose end the file system in memory is gone.
RUN = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import run_classifier, tensorflow as tf
gfile = tf.io.gfile

def put(path, data):
    gfile.makedirs(os.path.dirname(path))
    with gfile.GFile(path, "wb") as file:
        file.write(data)

for path in Path(sys.argv[2]).rglob("*"):
    if path.is_file():
        put(f"ram://m/encoder/{path.relative_to(sys.argv[2])}", path.read_bytes())
rows = "".join(f"{'good' if i % 2 else 'bad'} film {i}\\t{i % 2}\\n" for i in range(40))
for split in ("train", "dev", "test"):
    put(f"ram://m/data/{split}.tsv", ("text\\tlabel\\n" + rows).encode())

def call(*flags):
    status = run_classifier.main(["run_classifier.py", "--model_dir=ram://m/out", *flags])
    if status:
        sys.exit(status)

train = ["--encoder=ram://m/encoder", "--train_file=ram://m/data/tra*.tsv", "--do_train",
         "--validation_file=ram://m/data/dev.tsv", "--train_batch_size=8", "--max_steps=6",
         "--max_seq_length=16", "--nodo_report", "--tokenized_cache_dir=ram://m/cache"]
call(*train, "--test_file=ram://m/data/test.tsv", "--do_eval", "--do_predict", "--do_export")
first = gfile.listdir("ram://m/out/checkpoints")
call(*train)
assert gfile.listdir("ram://m/out/checkpoints") == first
call("--test_file=ram://m/data/dev.tsv", "--do_predict", "--do_eval", "--nodo_report")
call(*train, "--overwrite", "--streaming=true", "--label_names=0,1")
call(*train[:-1], "--overwrite", "--init_from=ram://m/out", "--model_dir=ram://m/next")
served = tf.saved_model.load("ram://m/next/export") if gfile.exists("ram://m/next/export") else None
assert served is None
call("--do_export")
serve = tf.saved_model.load("ram://m/out/export").signatures["serving_default"]
print("labels", serve(text=tf.constant(["good film"]))["label"].numpy()[0].decode() in "01")
for folder, _, names in sorted(gfile.walk("ram://m/out")):
    print(folder.rstrip("/"), *sorted(names))
"""


@pytest.mark.slow
def test_a_run_needs_no_file_of_this_machine(tiny_bert_dir):
    command = [sys.executable, "-c", RUN, str(REPOSITORY), str(tiny_bert_dir)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "labels True" in done.stdout
    tree = dict(line.partition(" ")[::2] for line in done.stdout.splitlines() if "ram://" in line)
    top = tree["ram://m/out"].split()
    assert top == [
        *("calibration.json", "config.json", "labels.txt", "log.jsonl", "metrics.json"),
        "train.cfg",
    ]
    assert "saved_model.pb" in tree["ram://m/out/export"]
    assert "step-6.index" in tree["ram://m/out/checkpoints"]
