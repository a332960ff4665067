import json
import os
import random
import string

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_finetune.data.blocks import (
    count_rows,
    read_block,
    read_records,
    split_files,
)
from tf_finetune.errors import UserError


def rows_of(path, block_bytes):
    return [row for block in split_files([str(path)], block_bytes) for row in read_block(block)]


def write_records(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(st.text(string.ascii_letters + "\r é", max_size=20), max_size=20),
    ends=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    block_bytes=st.integers(1, 60),
)
def test_blocks_hold_each_line_once_and_in_order(tmp_path_factory, lines, ends, last, block_bytes):
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    text = ends.join(lines) + (ends if last else "")
    path.write_bytes(text.encode())
    expected = [line.removesuffix("\r") for line in text.split("\n")]
    expected = [line for line in expected if line]
    rows = rows_of(path, block_bytes)
    assert [row.data.decode() for row in rows] == expected
    for row in rows:
        assert text.encode()[row.offset :].startswith(row.data)
    assert count_rows([str(path)]) == len(expected)


@settings(max_examples=200, deadline=None)
@given(
    records=st.lists(st.binary(max_size=60), max_size=12),
    block_bytes=st.integers(1, 120),
)
def test_blocks_hold_each_record_once_and_in_order(tmp_path_factory, records, block_bytes):
    path = tmp_path_factory.mktemp("records") / "rows.tfrecord"
    write_records(path, records)
    assert [row.data for row in rows_of(path, block_bytes)] == records
    assert count_rows([str(path)]) == len(records)


def test_a_record_that_looks_like_many(tmp_path):
    """The bytes of a TFRecord file, as the data of a record of another one."""
    write_records(tmp_path / "inner.tfrecord", [b"a" * 30] * 3)
    inner = (tmp_path / "inner.tfrecord").read_bytes()
    write_records(tmp_path / "outer.tfrecord", [b"b" * 100, b"c" * 100])
    assert len(rows_of(tmp_path / "outer.tfrecord", 10)) == 2
    assert inner


@pytest.mark.parametrize("place", [0, 5, 9, 20, 60, -1])
def test_a_damaged_record_is_named(tmp_path, place):
    path = tmp_path / "rows.tfrecord"
    write_records(path, [b"x" * 30, b"y" * 30])
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"rows.tfrecord:byte (0|46): damaged"):
        rows_of(path, 1000)
    path.write_bytes(data[:-3])
    with pytest.raises(UserError, match="damaged"):
        rows_of(path, 1000)
    with pytest.raises(UserError, match="damaged"):
        count_rows([str(path)])


def test_large_blocks_are_as_small_ones(tmp_path):
    rng = random.Random(1)
    rows = [json.dumps({"id": i, "text": "x" * rng.choice([0, 5, 500])}) for i in range(3000)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows))
    for block_bytes in (1000, 2**16, 2**30):
        assert [row.data.decode() for row in rows_of(path, block_bytes)] == rows


@pytest.mark.parametrize("change", [lambda path: path.write_text("{}\n" * 9), lambda p: p.touch()])
def test_a_file_that_changes_is_named(tmp_path, change):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n" * 10)
    os.utime(path, (1, 1))
    (block,) = split_files([str(path)])
    assert len(read_block(block)) == 10
    change(path)
    with pytest.raises(UserError, match=r"rows\.jsonl: the file was changed while"):
        read_block(block)


@pytest.mark.parametrize("place", range(20))
def test_a_damaged_header_is_never_passed_over(tmp_path, place):
    path = tmp_path / "rows.tfrecord"
    write_records(path, [b"x" * 84] * 20)  # 100 bytes each
    data = bytearray(path.read_bytes())
    data[place * 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"byte {place * 100}: damaged"):
        rows_of(path, 500)
    with pytest.raises(UserError, match=f"byte {place * 100}: damaged"):
        list(read_records(str(path)))


def test_a_carriage_return_at_the_end_is_no_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    for text, rows in (("{}\n\r", 1), ("\r", 0), ("{}\r", 1), ("{}\n{}", 2)):
        path.write_bytes(text.encode())
        assert count_rows([str(path)]) == len(rows_of(path, 9)) == rows
