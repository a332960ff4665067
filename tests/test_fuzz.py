"""Hostile input ends in a result or in one of our errors: no other exception, no hang, no flood."""

import gzip
import importlib.util
import io
import json
import lzma
import os
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).resolve().parent / "fuzz"
SPEC = importlib.util.spec_from_file_location("fuzz_targets", HERE / "targets.py")
assert SPEC and SPEC.loader
targets = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(targets)

# Of each of 28 targets: 3,600 by `make test_thorough`.
CASES = int(os.environ.get("FUZZ_CASES", "100"))
WORDS = """
text label labels sentence1 sentence2 idx id 0 1 -1 2 1.5 1e999 -0 NaN Infinity null true false
good bad \\t \\n \\ud800 \\u0000 " "" ' , ; : { } [ ] {"a": ["b", "c"]} {"label": "text"}
--train_file= --flagfile= --nodo_train --do_eval --learning_rate= --seed= --head= --freeze=
--text_columns=a,b --no_such_flag --flagfile=/dev/shm --undefok= -- # PAR1 \\x00
data labels encoder optimizer loop runtime run model train problem problem_type
single_label multi_label regression label_names text_columns learning_rate
99999999999999999999999 -5 0x10 é ü 中 \u2028 \ufeff
""".split()  # noqa: SIM905
SEPARATORS = [b"\t", b"\n", b"\r", b"\r\n", b",", b" ", b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\\"]


def workbook() -> bytes:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    book, out = openpyxl.Workbook(), io.BytesIO()
    for row in (["text", "label"], ["a", 0], ["b", 1]):
        book.active.append(row)
    book.save(out)
    return out.getvalue()


def seeds() -> list[bytes]:
    """Whole files of every kind, of which the fuzzer takes pieces."""
    example = tf.train.Example()
    example.features.feature["text"].bytes_list.value.append(b"good")
    example.features.feature["label"].int64_list.value.append(1)
    record = targets.FOLDER / "seed.tfrecord"
    with tf.io.TFRecordWriter(str(record)) as writer:
        for _ in range(2):
            writer.write(example.SerializeToString())
    table = pyarrow.table({"text": ["a", "b"], "label": [0, 1]})
    parquet = targets.FOLDER / "seed.parquet"
    pyarrow.parquet.write_table(table, parquet)
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": ["y"]}]
    return [
        record.read_bytes(),
        parquet.read_bytes(),
        gzip.compress(b"text\tlabel\na\t0\nb\t1\n", mtime=0),
        pyarrow.compress(b"text\tlabel\na\t0\nb\t1\n", codec="zstd", asbytes=True),
        lzma.compress(b"text,label\na,0\nb,1\n"),
        workbook(),
        json.dumps(rows, indent=1).encode(),
        b'sep=;\ntext;label\n"a;""b";0\nb;1\n',
        b"text\tlabel\na\t0\nb\t1\n",
        b'text,label\n"a,""b",0\nb,1\n',
        "\n".join(map(json.dumps, rows)).encode(),
        json.dumps({"data": {}, "model": {}, "problem": {"problem_type": "regression"}}).encode(),
        b"--train_file=a.tsv\n--do_train\n# comment\n--learning_rate=1e-3\n",
    ]


SEEDS = seeds()
PIECES = st.one_of(
    st.sampled_from(WORDS).map(str.encode),
    st.sampled_from(SEPARATORS),
    st.binary(max_size=6),
    st.sampled_from(SEEDS),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A whole file with some bytes changed, cut off, or doubled."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.TARGETS)
def test_thousands_of_inputs_end_well(name):
    """A case may take 20 seconds, which none needs, and all of them together 300 MiB."""
    cases = 0

    @settings(
        max_examples=CASES,
        deadline=20_000,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(st.lists(PIECES, max_size=12).map(b"".join), damaged()))
    def fuzz(data: bytes) -> None:
        nonlocal cases
        cases += 1
        targets.check(name, data)

    before = memory_mib()
    fuzz()
    assert cases >= CASES * 0.9
    assert memory_mib() - before < 300


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["csv_load", "jsonl_load", "tsv_load", "table", "json_load", "blocks", "flagfile"]
)
def test_inputs_that_reach_new_lines_end_well(name):
    """Led by coverage, with libFuzzer's limits of time and memory for each case."""
    pytest.importorskip("atheris", reason="atheris is not installed")
    runs = 3 * CASES
    command = [sys.executable, str(HERE / "run_atheris.py"), name, f"-runs={runs}", "-seed=1"]
    # The peak memory that it sees is that of this process, at whose fork it began.
    command += ["-timeout=20", "-rss_limit_mb=0", "-malloc_limit_mb=500", "-max_len=300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=HERE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{runs} runs" in done.stderr or "stat::" in done.stderr or "Done" in done.stderr


@pytest.mark.parametrize("path", sorted(HERE.glob("cases/*/*")), ids=lambda path: path.name)
def test_what_was_found_before(path):
    targets.check(path.parent.name, path.read_bytes())


@pytest.mark.parametrize(("name", "data"), [("table", b"\xce\r\r\n1\n")])
def test_inputs_that_once_ended_badly(name, data):
    targets.check(name, data)
