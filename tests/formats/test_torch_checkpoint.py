import contextlib
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tf_finetune.errors import UserError
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.formats.torch_checkpoint import TorchFile

STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
}


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _integers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"


def tensor(array: np.ndarray, key: str, **changed: Any) -> bytes:
    """The pickle of a tensor; `offset`, `shape`, `strides` and `storage` overrule the array's."""
    steps = tuple(step // array.itemsize for step in array.strides)
    storage = changed.get("storage", STORAGES[array.dtype.name])
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + _text("storage")
        + f"ctorch\n{storage}\n".encode()
        + _text(key)
        + _text("cpu")
        + b"I%d\ntQ" % array.size
        + b"I%d\n" % changed.get("offset", 0)
        + _integers(changed.get("shape", array.shape))
        + _integers(changed.get("strides", steps))
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def state_dict(items: Mapping[str, bytes]) -> bytes:
    """The pickle of a dict whose values are pickled."""
    return b"\x80\x02}(" + b"".join(_text(name) + value for name, value in items.items()) + b"u."


def save_zip(
    path: Path, pickled: bytes, storages: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", "3\n")
    return path


def save_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Writes a dict of tensors as `torch.save` does."""
    pickled = state_dict({name: tensor(a, str(i)) for i, (name, a) in enumerate(tensors.items())})
    return save_zip(path, pickled, {str(i): a.tobytes() for i, a in enumerate(tensors.values())})


SIX = np.arange(6, dtype="float32").reshape(2, 3)


def test_a_file_of_pytorchs_own():
    """PyTorch 2.13 wrote it: torch.save of a state_dict with `a = torch.arange(6.).reshape(2, 3)`,
    its transpose on the same storage, a slice, other types, a Parameter and an expanded view."""
    expected = {
        "whole": SIX,
        "transposed": SIX.T,
        "slice": np.array([4.0, 6.0, 8.0], "float32"),
        "half": SIX.astype("float16"),
        "bfloat16": SIX.astype("bfloat16"),
        "double": SIX.astype("float64"),
        "parameter": SIX + 1,
        "ids": np.array([[0, 1, 2, 3]]),
        "scalar": np.float32(7),
        "empty": np.zeros((0, 3), "float32"),
        "flag": np.array([True, False]),
    }
    with TorchFile(Path(__file__).with_name("pytorch.bin")) as file:
        assert file.keys() == list(expected)
        for name, value in expected.items():
            found = file.get_tensor(name)
            assert (found.dtype, found.shape) == (value.dtype, value.shape), name
            np.testing.assert_array_equal(found, value, err_msg=name)


def test_our_own_writing_of_it(tmp_path):
    tensors = {"a": SIX, "b.c": SIX.astype("bfloat16"), "ids": np.arange(3)}
    with TorchFile(save_torch(tmp_path / "x.bin", tensors)) as file:
        for name, value in tensors.items():
            np.testing.assert_array_equal(file.get_tensor(name), value)


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["whole", "value", "key"])
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path, protocol, place):
    call = Call(os.system, f"touch {tmp_path}/ran")
    content = {"whole": call, "value": {"a": call}, "key": {call: 1}}[place]
    pickled = pickle.dumps(content, protocol)
    path = save_zip(tmp_path / "x.bin", pickled, {})
    with pytest.raises(UserError, match=r"asks for '\w+\.system'.*nothing of it was run"):
        TorchFile(path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickled)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins\neval",
        "builtins\ngetattr",
        "torch._utils\n_rebuild_sparse_tensor",
        "torch\nload",
        "torch.storage\n_load_from_bytes",
        "collections\nOrderedDict.fromkeys",
        "numpy\nload",
        "functools\npartial",
    ],
)
def test_no_other_name_is_known(tmp_path, name):
    module, _, attribute = name.partition("\n")
    by_line = f"c{name}\n)R.".encode()
    parts = b"".join(b"\x8c" + bytes([len(p)]) + p.encode() for p in (module, attribute))
    for pickled in (b"\x80\x02" + by_line, b"\x80\x04" + parts + b"\x93)R."):
        with pytest.raises(UserError, match="which no dict of tensors needs"):
            TorchFile(save_zip(tmp_path / "x.bin", pickled, {}))


@pytest.mark.parametrize(
    "target",
    ["torch._utils\n_rebuild_tensor_v2", "torch\nFloatStorage", "collections\nOrderedDict"],
)
def test_a_pickle_changes_nothing_for_the_next_one(tmp_path, target):
    """The opcode `b` sets attributes, `__defaults__` and `__call__` for instance."""
    state = b"(N}(X\x0c\x00\x00\x00__defaults__)X\x05\x00\x00\x00extraI1\nut"
    pickled = b"\x80\x02c" + target.encode() + b"\n" + state + b"b0}."
    with contextlib.suppress(TypeError, AttributeError):  # It has no attribute that can be set.
        TorchFile(save_zip(tmp_path / "x.bin", pickled, {}))
    test_our_own_writing_of_it(tmp_path)
    test_a_file_of_pytorchs_own()


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": (2, 4), "strides": (4, 1)},
        {"shape": (7,), "strides": (1,)},
        {"shape": (2, 3), "strides": (30, 1)},
        {"shape": (10**9, 10**9), "strides": (0, 0)},
        {"offset": 1},
        {"offset": -1},
        {"strides": (-3, 1)},
        {"shape": (-2, 3)},
        {"shape": (6,)},
        {"offset": 10**30},
    ],
    ids=str,
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, changed):
    pickled = state_dict({"a": tensor(SIX, "0", **changed), "good": tensor(SIX, "0")})
    with TorchFile(save_zip(tmp_path / "x.bin", pickled, {"0": SIX.tobytes()})) as file:
        with pytest.raises(ValueError, match="tensor 'a'"):
            file.get_tensor("a")
        np.testing.assert_array_equal(file.get_tensor("good"), SIX)


def test_a_storage_that_is_shorter_than_declared_or_missing(tmp_path):
    pickled = state_dict({"a": tensor(SIX, "0"), "b": tensor(SIX, "../../../etc/passwd")})
    with TorchFile(save_zip(tmp_path / "x.bin", pickled, {"0": SIX.tobytes()[:20]})) as file:
        with pytest.raises(ValueError, match="reaches beyond its storage of 5"):
            file.get_tensor("a")
        with pytest.raises(KeyError):
            file.get_tensor("b")


def test_what_would_fill_the_memory_is_refused(tmp_path):
    memo = b"\x80\x02}r\xff\xff\xff\x7f."
    with pytest.raises(ValueError, match="object 2147483647"):
        TorchFile(save_zip(tmp_path / "x.bin", memo, {}))
    bomb = state_dict({"a": tensor(SIX, "0")})
    path = save_zip(tmp_path / "y.bin", bomb, {"0": bytes(10**6)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="is compressed"):
        TorchFile(path)


def save_stream(path: Path, content: bytes, storages: Mapping[str, tuple[int, bytes]]) -> Path:
    """Writes a pickle and storages as PyTorch before 1.6 did."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, machine)]
    parts += [content, pickle.dumps(list(storages), 2)]
    parts += [count.to_bytes(8, "little") + data for count, data in storages.values()]
    path.write_bytes(b"".join(parts))
    return path


def test_a_name_that_leads_out_of_the_archive_is_a_name(tmp_path):
    """Nothing is ever unpacked."""
    (tmp_path / "secret").write_bytes(SIX.tobytes())
    path = save_zip(tmp_path / "x.bin", state_dict({"a": tensor(SIX, "../../secret")}), {})
    with TorchFile(path) as file, pytest.raises(KeyError):
        file.get_tensor("a")
    inside = {"../../secret": SIX.tobytes()}
    path = save_zip(tmp_path / "y.bin", state_dict({"a": tensor(SIX, "../../secret")}), inside)
    with TorchFile(path) as file:
        np.testing.assert_array_equal(file.get_tensor("a"), SIX)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["secret", "x.bin", "y.bin"]


def test_the_format_of_before_1_6(tmp_path):
    """PyTorch's own file of it is one of the encoders that `make_encoders.py` wrote."""
    tensors = {"a": SIX, "half": SIX.astype("float16"), "ids": np.arange(3)}
    content = state_dict({name: tensor(value, name) for name, value in tensors.items()})
    storages = {name: (value.size, value.tobytes()) for name, value in tensors.items()}
    with TorchFile(save_stream(tmp_path / "x.bin", content, storages)) as file:
        for name, value in tensors.items():
            np.testing.assert_array_equal(file.get_tensor(name), value)


@pytest.mark.parametrize("length", [1, 40, 100, 200, 280])
def test_a_stream_that_ends_early(tmp_path, length):
    content = state_dict({"a": tensor(SIX, "a")})
    path = save_stream(tmp_path / "x.bin", content, {"a": (6, SIX.tobytes())})
    data = path.read_bytes()
    assert len(data) > 280
    path.write_bytes(data[:length] if length < 280 else data[:-1])
    with pytest.raises(Exception, match=r".") as error, TorchFile(path) as file:
        file.get_tensor("a")
    assert not isinstance(error.value, MemoryError)


def test_a_hostile_stream_is_refused_and_runs_nothing(tmp_path):
    hostile = pickle.dumps({"a": Call(os.system, f"touch {tmp_path}/ran")}, 2)
    with pytest.raises(UserError, match=r"asks for '\w+\.system'.*nothing of it was run"):
        TorchFile(save_stream(tmp_path / "x.bin", hostile, {}))
    content = state_dict({"a": tensor(SIX, "a")})
    with pytest.raises(UserError, match=r"asks for"):
        TorchFile(save_stream(tmp_path / "y.bin", content, {}).with_name("x.bin"))
    claims = save_stream(tmp_path / "z.bin", content, {"a": (2**60, SIX.tobytes())})
    with TorchFile(claims) as file, pytest.raises(ValueError, match="ends within the storage 'a'"):
        file.get_tensor("a")
    assert not (tmp_path / "ran").exists()


def test_damaged_files_end_in_an_exception(tmp_path):
    """None ends the process, none is read as if it were whole."""
    whole = Path(__file__).with_name("pytorch.bin").read_bytes()
    random = np.random.default_rng(0)
    for length in [0, 1, 19, 100, *random.integers(20, len(whole) - 1, 20)]:
        (tmp_path / "x.bin").write_bytes(whole[:length])
        with pytest.raises((ValueError, zipfile.BadZipFile)):
            TorchFile(tmp_path / "x.bin")
    for place in random.integers(0, 1500, 100):
        (tmp_path / "x.bin").write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        try:
            with TorchFile(tmp_path / "x.bin") as file:
                for name in file.keys():  # noqa: SIM118
                    file.get_tensor(name)
        except Exception as error:
            assert str(error)


@pytest.fixture
def bin_dir(tiny_bert_dir, tmp_path) -> Path:
    """The tiny BERT as PyTorch saved it: a prefix, a head, and the names of 2018."""
    directory = Path(shutil.copytree(tiny_bert_dir, tmp_path / "bert"))
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    renamed = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in tensors.items()
    }
    renamed["bert.embeddings.position_ids"] = np.arange(64)[None]
    renamed["cls.predictions.transform.LayerNorm.gamma"] = np.ones(16, "float32")
    renamed["cls.predictions.decoder.weight"] = np.ones((123, 16), "float32")
    save_torch(directory / "pytorch_model.bin", renamed)
    return directory


def assert_same(directory: Path, expected: Path) -> None:
    weights = (load_encoder(str(path)).network.get_weights() for path in (directory, expected))
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_bert_whose_weights_are_pytorchs(bin_dir, tiny_bert_dir):
    assert_same(bin_dir, tiny_bert_dir)


def test_safetensors_are_preferred(bin_dir, tiny_bert_dir):
    (bin_dir / "pytorch_model.bin").write_bytes(b"damaged")
    shutil.copy(tiny_bert_dir / "model.safetensors", bin_dir)
    assert_same(bin_dir, tiny_bert_dir)


def test_in_several_files_and_half_precision(tiny_bert_dir, tmp_path):
    directory = Path(shutil.copytree(tiny_bert_dir, tmp_path / "bert"))
    tensors = {
        k: v.astype("bfloat16") for k, v in load_file(directory / "model.safetensors").items()
    }
    (directory / "model.safetensors").unlink()
    where = {}
    for number in range(3):
        part = dict(list(tensors.items())[number::3])
        save_torch(directory / f"pytorch_model-{number}.bin", part)
        where |= dict.fromkeys(part, f"pytorch_model-{number}.bin")
    index = directory / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    half = Path(shutil.copytree(tiny_bert_dir, tmp_path / "half"))
    save_torch(half / "pytorch_model.bin", tensors)
    (half / "model.safetensors").unlink()
    assert_same(directory, half)
    (directory / "pytorch_model-1.bin").unlink()
    with pytest.raises(UserError, match=r"names pytorch_model-1\.bin"):
        load_encoder(str(directory))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not read by anyone", "pytorch_model.bin is no file of PyTorch; it begins with b'not"),
        (b"", "is no file of PyTorch"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2), "pytorch_model.bin is damaged"),
        (b"PK\x05\x06" + bytes(18), "holds 0 data.pkl"),
    ],
    ids=["text", "empty", "pointer", "old", "empty_zip"],
)
def test_what_is_no_such_file_is_told(bin_dir, content, message):
    (bin_dir / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_encoder(str(bin_dir))
    assert str(error.value).startswith(f"--encoder={bin_dir}: ")


def test_a_hostile_file_ends_in_a_message(bin_dir):
    (bin_dir / "pytorch_model.bin").rename(bin_dir / "whole.bin")
    hostile = pickle.dumps({"a": Call(os.system, "false")}, 2)
    save_zip(bin_dir / "pytorch_model.bin", hostile, {})
    with pytest.raises(UserError, match=r"^--encoder=.* asks for '\w+\.system'"):
        load_encoder(str(bin_dir))
    kernel = np.ones((16, 16), "float32")
    with TorchFile(bin_dir / "whole.bin") as file:
        names = file.keys()
    beyond = tensor(kernel, "0", shape=(16, 17), strides=(17, 1))
    pickled = state_dict(dict.fromkeys(names, beyond))
    save_zip(bin_dir / "pytorch_model.bin", pickled, {"0": kernel.tobytes()})
    with pytest.raises(UserError, match="reaches beyond its storage of 256"):
        load_encoder(str(bin_dir))
