"""`hf://` for encoders, from the Hub's cache and from a server; hostile directories."""

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tf_finetune.errors import UserError
from tf_finetune.formats.encoders import load_encoder

REPOSITORY = Path(__file__).resolve().parents[2]
SHA = "0123456789abcdef0123456789abcdef01234567"
PROGRAM = """
import json, sys
from tf_finetune.formats.encoders import load_encoder
for handle in sys.argv[1:]:
    try:
        encoder = load_encoder(handle)
        print(json.dumps([encoder.pooling, str(encoder.source.directory), encoder.handle]))
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
"""


def load(handles: list[str], **environment: str) -> list[list[str] | str]:
    """Loads handles in a process of its own; returns pooling and folder, or the error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *handles],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("[", '"'))]


@pytest.fixture
def sentence_dir(tiny_bert_dir, tmp_path) -> Path:
    """A folder of sentence-transformers, with files of other programs."""
    folder = Path(shutil.copytree(tiny_bert_dir, tmp_path / "model"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"not for us")
    (folder / "pytorch_model.bin").write_bytes(b"a second copy of the weights")
    return folder


def fill_cache(home: Path, name: str, folder: Path) -> None:
    """Puts a folder into the Hub's cache, as `hf download` does."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / SHA)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(SHA)


def test_without_a_network_the_cache_is_used(sentence_dir, tmp_path):
    fill_cache(tmp_path, "org/tiny", sentence_dir)
    gpt = Path(shutil.copytree(sentence_dir, tmp_path / "gpt"))
    (gpt / "config.json").write_text('{"model_type": "gpt2"}')
    fill_cache(tmp_path, "org/gpt", gpt)
    handles = ["hf://org/tiny", f"hf://org/tiny@{SHA}", "hf://org/other", "hf://org/gpt"]
    found = load(handles, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert found[0] == found[1] and found[0][0] == "mean"
    assert found[0][1].startswith(str(tmp_path)) and found[0][2] == f"hf://org/tiny@{SHA}"
    assert str(found[2]).startswith("UserError: --encoder=hf://org/other: it cannot be downloaded")
    assert "--encoder=/path/to/other" in found[2] and "HF_HOME" in found[2]
    assert "config.json has model_type='gpt2'; only bert, roberta" in found[3]


def test_a_run_keeps_the_commit_that_it_began_with(sentence_dir, tiny_bert_dir, tmp_path):
    fill_cache(tmp_path, "org/tiny", sentence_dir)
    rows = [{"text": f"a number {n}", "label": "yn"[n % 2]} for n in range(8)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["--encoder=hf://org/tiny", f"--model_dir={tmp_path / 'run'}"]
    train = [f"--train_file={data}", "--do_train", "--max_steps=2", "--max_seq_length=32"]

    def run(*arguments: str) -> str:
        environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
        program = [sys.executable, str(REPOSITORY / "run_classifier.py"), *command, *arguments]
        done = subprocess.run(program, env=environment, capture_output=True, text=True)
        assert not done.returncode, done.stderr
        return done.stdout

    assert f"hf://org/tiny@{SHA}" in run(*train)
    # The Hub's main is another commit now, of another network.
    repository = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(tiny_bert_dir, repository / "snapshots" / ("f" * 40))
    (repository / "snapshots" / ("f" * 40) / "config.json").write_text("{}")
    (repository / "refs" / "main").write_text("f" * 40)
    assert f"hf://org/tiny@{SHA}" in run(*train)
    assert f"hf://org/tiny@{SHA}" in run(f"--test_file={data}", "--do_eval", "--nodo_report")


@pytest.fixture
def hub(sentence_dir) -> Iterator[tuple[str, list[str]]]:
    """A server that answers as the Hub does; its address, and the files that were asked for."""
    asked: list[str] = []
    files = {
        str(path.relative_to(sentence_dir)): path.read_bytes()
        for path in sentence_dir.rglob("*")
        if path.is_file()
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            if re.match(r"/api/models/org/tiny(/revision/(main|v2))?(\?.*)?$", self.path):
                listed = [{"rfilename": name} for name in files]
                body = json.dumps({"id": "org/tiny", "sha": SHA, "siblings": listed}).encode()
                return self.answer(body, {"Content-Type": "application/json"})
            if self.path.startswith(f"/api/models/org/tiny/tree/{SHA}"):
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                    for name, data in files.items()
                ]
                return self.answer(json.dumps(tree).encode(), {"Content-Type": "application/json"})
            if match := re.match(rf"/org/tiny/resolve/{SHA}/(.*)$", self.path):
                if self.command == "GET":
                    asked.append(match[1])
                body = files[match[1]]
                tag = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": SHA}
                return self.answer(body, tag)
            missing = "RevisionNotFound" if "org/tiny" in self.path else "RepoNotFound"
            self.answer(b"{}", {"X-Error-Code": missing}, 404)

        def answer(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def test_it_is_downloaded_once_and_no_more_than_is_read(hub, tmp_path):
    address, asked = hub
    home = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1"}
    handles = ["hf://org/tiny", "hf://org/tiny@v2", "hf://org/tiny@v9", "hf://no/model"]
    found = load(handles, **home)
    assert found[0][0] == "mean" and found[1] == found[0], found
    assert "the Hugging Face Hub's 'org/tiny' has no revision 'v9'" in found[2]
    assert "the Hugging Face Hub has no model 'no/model', or it is private" in found[3]
    assert sorted(asked) == sorted(
        [
            *("config.json", "vocab.txt", "tokenizer_config.json", "1_Pooling/config.json"),
            "model.safetensors",
        ]
    )


def copied(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def test_a_header_that_claims_a_gigabyte(tiny_bert_dir, tmp_path):
    folder = copied(tiny_bert_dir, tmp_path / "bert")
    claimed = (2**30).to_bytes(8, "little") + b'{"a":'
    (folder / "model.safetensors").write_bytes(claimed)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        load_encoder(str(folder))


def test_an_index_that_points_outside(tiny_bert_dir, tmp_path):
    folder = copied(tiny_bert_dir, tmp_path / "bert")
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    names = load_file(tmp_path / "elsewhere.safetensors")
    for place in ("../elsewhere.safetensors", str(tmp_path / "elsewhere.safetensors")):
        index = {"weight_map": dict.fromkeys(names, place)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(UserError, match="which is not a file beside it"):
            load_encoder(str(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_json_that_is_no_object_or_too_deep(tiny_bert_dir, tmp_path, file):
    for number, text in enumerate(("[" * 100_000, "[]", "\x00", '{"a": ' * 50_000)):
        folder = copied(tiny_bert_dir, tmp_path / str(number))
        (folder / file).write_text(text)
        with pytest.raises(UserError, match=r"--encoder="):
            load_encoder(str(folder))


def test_sizes_that_no_memory_holds(tiny_bert_dir, tmp_path):
    """Files cannot hold more weights than bytes; no network of the claimed size is made."""
    folder = copied(tiny_bert_dir, tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    for key in ("vocab_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings"):
        (folder / "config.json").write_text(json.dumps(config | {key: 10**11}))
        with pytest.raises(UserError, match=r"a network of [\d,]{14,} weights; the files beside"):
            load_encoder(str(folder))


def test_a_link_out_of_the_folder_is_a_file_like_any(tiny_bert_dir, tmp_path):
    """The Hub's cache is made of links."""
    folder = copied(tiny_bert_dir, tmp_path / "bert")
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    ours, theirs = (
        load_encoder(str(path)).network.get_weights() for path in (folder, tiny_bert_dir)
    )
    for value, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_tensor_of_another_type(tiny_bert_dir, tmp_path):
    folder = copied(tiny_bert_dir, tmp_path / "bert")
    tensors = load_file(folder / "model.safetensors")
    tensors["pooler.dense.bias"] = np.full(16, np.inf, "float32")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match="16 of 16 values that are NaN or infinite"):
        load_encoder(str(folder))
