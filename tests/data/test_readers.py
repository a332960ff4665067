import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from tf_finetune.data.readers import read_file, read_label_names
from tf_finetune.errors import UserError

# From the README beside the data.
ROWS = {
    "banking77/train.csv": 10_003,
    "banking77/test.csv": 3_080,
    "cola/train.tsv": 8_551,
    "cola/dev.tsv": 1_043,
    "mrpc/train.tsv": 4_076,
    "mrpc/test.tsv": 1_725,
    "sst2/train.tsv": 60_614,
    "sst2/dev.tsv": 6_735,
    "sst2/test.tsv": 872,
    "goemotions/train.tsv": 43_410,
    "goemotions/dev.tsv": 5_426,
    "goemotions/test.tsv": 5_427,
    "sick/train.tsv": 4_500,
    "sick/dev.tsv": 500,
    "sick/test.tsv": 4_927,
}


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def rows(path: str) -> list[dict]:
    return [row for _, row in read_file(path)]


def complaint(path: str) -> str:
    with pytest.raises(UserError) as caught:
        list(read_file(path))
    return str(caught.value)


@pytest.mark.parametrize("name", ROWS)
def test_row_counts_of_the_reference_data(shared_data: Path, name: str) -> None:
    assert sum(1 for _ in read_file(str(shared_data / name))) == ROWS[name]


def test_tsv_knows_no_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"open\t1\nit\'s "so"\t0\n a,b \t1\n')
    assert list(read_file(path)) == [
        (f"{path}:2", {"text": '"open', "label": "1"}),
        (f"{path}:3", {"text": 'it\'s "so"', "label": "0"}),
        (f"{path}:4", {"text": " a,b ", "label": "1"}),
    ]


def test_csv_quotes_and_locations(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,label\n"two\nlines, ""quoted""",x\n\nplain,y\n"",z\n')
    assert list(read_file(path)) == [
        (f"{path}:2", {"text": 'two\nlines, "quoted"', "label": "x"}),
        (f"{path}:5", {"text": "plain", "label": "y"}),
        (f"{path}:6", {"text": "", "label": "z"}),
    ]


def test_jsonl(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a\\tb", "label": ["x", "y"]}\n\n{"text": "c"}')
    assert list(read_file(path)) == [
        (f"{path}:1", {"text": "a\tb", "label": ["x", "y"]}),
        (f"{path}:3", {"text": "c"}),
    ]


def test_half_a_surrogate_pair_in_json(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "a.jsonl", r'{"text": "\ud83d\ude00"}')) == [{"text": "😀"}]
    with pytest.raises(UserError, match=r"a\.jsonl:2: half of a surrogate pair"):
        rows(write(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": "\\uD83D"}\n'))


def test_long_csv_cell(tmp_path: Path) -> None:
    text = "a" * 200_000
    assert rows(write(tmp_path / "a.csv", f"text,label\n{text},1\n"))[0]["text"] == text


@pytest.mark.parametrize("kind", ["tsv", "csv"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_byte_order_mark_and_line_ends(
    tmp_path: Path, kind: str, start: bytes, end: bytes, last: bool
) -> None:
    mark = {"tsv": b"\t", "csv": b","}[kind]
    lines = [mark.join(cells) for cells in ([b"text", b"label"], ["é".encode(), b"1"], [b"", b"0"])]
    path = write(tmp_path / f"a.{kind}", start + end.join(lines) + (end if last else b""))
    assert rows(path) == [{"text": "é", "label": "1"}, {"text": "", "label": "0"}]


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    text = "a\x0b\x0c\x1c\x85\u2028\u2029b"
    path = write(tmp_path / "a.tsv", f"text\tlabel\n{text}\t1\n")
    assert rows(path) == [{"text": text, "label": "1"}]


def test_blank_lines(tmp_path: Path) -> None:
    two = write(tmp_path / "two.tsv", "text\tlabel\na\t1\n\nb\t0\n\n")
    assert [row["text"] for row in rows(two)] == ["a", "b"]
    # In a single column, they are empty texts: dropping them would shift the row numbers.
    for kind in ("tsv", "csv"):
        one = write(tmp_path / f"one.{kind}", "text\na\n\nb\n")
        assert [row["text"] for row in rows(one)] == ["a", "", "b"]


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_gzip_reads_alike(tmp_path: Path, kind: str) -> None:
    content = {
        "tsv": b"text\tlabel\na\t1\n",
        "csv": b"text,label\na,1\n",
        "jsonl": b'{"text": "a", "label": "1"}\n',
    }[kind]
    path = write(tmp_path / f"a.{kind}.gz", gzip.compress(content))
    assert rows(path) == [{"text": "a", "label": "1"}]


def test_reading_streams(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", b"text\tlabel\na\t1\nb\t2\nragged\n")
    lines = read_file(path)
    assert next(lines)[1]["text"] == "a"
    assert next(lines)[1]["text"] == "b"
    with pytest.raises(UserError):
        next(lines)


def test_unknown_extension_lists_the_known(tmp_path: Path) -> None:
    message = complaint(write(tmp_path / "a.xls", "x"))
    assert "'.xls'" in message and ".parquet" in message and ".gz" in message


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.tsv.gz"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    content = gzip.compress(b"") if name.endswith("gz") else b""
    path = write(tmp_path / name, content)
    assert path in complaint(path)
    assert "empty" in complaint(path) or "no rows" in complaint(path)


@pytest.mark.parametrize(("name", "content"), [("a.tsv", "a\tb\n"), ("a.csv", "a,b\n\n")])
def test_header_only(tmp_path: Path, name: str, content: str) -> None:
    assert "no rows" in complaint(write(tmp_path / name, content))


def test_column_named_twice(tmp_path: Path) -> None:
    assert "two columns are named 'a'" in complaint(write(tmp_path / "a.tsv", "a\ta\n1\t2\n"))


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.tsv", "text\tlabel\na\t1\nb\tc\t1\n", "3 columns found, 2 expected"),
        ("a.tsv", "text\tlabel\na\t1\nb\n", "1 columns found, 2 expected"),
        ("a.csv", 'text,label\n"a\nb",1\nc,d,1\n', "3 columns found, 2 expected"),
    ],
)
def test_ragged_row(tmp_path: Path, name: str, content: str, found: str) -> None:
    path = write(tmp_path / name, content)
    line = 4 if name == "a.csv" else 3
    message = complaint(path)
    assert message.startswith(f"{path}:{line}: {found}") and "text, label" in message


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_invalid_utf8_names_line_and_byte(tmp_path: Path, name: str) -> None:
    # A two-byte character before it: bytes are counted, not characters.
    content = "text,label\nök,1\n".encode() + b"b\xe9d,1\n"
    if name == "a.tsv":
        content = content.replace(b",", b"\t")
    if name == "a.jsonl":
        content = '{"t": "ö"}\n{}\n'.encode() + b"b\xe9d\n"
    path = write(tmp_path / name, content)
    offset = content.index(0xE9)
    assert complaint(path).startswith(f"{path}:3: not UTF-8 at byte {offset} of the file (0xe9)")


def test_nul_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", b"text\tlabel\na\0b\t1\n")
    assert complaint(path).startswith(f"{path}:2: a NUL byte at byte 12 ")
    utf16 = write(tmp_path / "b.csv", "text,label\na,1\n".encode("utf-16"))
    assert "UTF-8" in complaint(utf16)


@pytest.mark.parametrize("line", ['{"text": "a"', "nonsense", "[" * 100_000])
def test_bad_json_line(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n' + line + "\n")
    assert complaint(path).startswith(f"{path}:2: not valid JSON")


def test_json_line_that_is_no_object(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '["a", 1]\n')
    assert complaint(path).startswith(f"{path}:1: a JSON str; each row must be an object")
    path = write(tmp_path / "b.jsonl", '{"text": "a"}\n["a", 1]\n')
    assert complaint(path).startswith(f"{path}:2: a JSON list; each line must be an object")


def test_open_quote_names_the_line_where_it_begins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,label\na,1\n"b,1\nc,1\n')
    assert complaint(path).startswith(f"{path}:3: the row that begins here is not valid CSV")


def test_damaged_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(b"text\tlabel\n" + b"a\t1\n" * 1000)
    for content in (whole[:-12], whole[:30] + b"\xff\xff" + whole[32:]):
        path = write(tmp_path / "a.tsv.gz", content)
        assert complaint(path).startswith(f"{path}: cannot be read")


def test_label_names(tmp_path: Path) -> None:
    assert read_label_names(write(tmp_path / "a", "zoo\nbar \n\n")) == ("zoo", "bar")
    with pytest.raises(UserError, match=r"b:3: the label 'x' stands here twice"):
        read_label_names(write(tmp_path / "b", "x\ny\nx\n"))
    with pytest.raises(UserError, match="empty"):
        read_label_names(write(tmp_path / "c", "\n"))


def test_text_formats_do_without_tensorflow(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "text\tlabel\na\t1\nb\t0\n")
    write(tmp_path / "test.jsonl", '{"text": "a", "label": 1}\n')
    program = f"""
import sys
from tf_finetune.runs.config import DataConfig
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.facts import describe
from tf_finetune.data.report import data_report
from tf_finetune.data.labelled import load_data
data_report(describe(load_data(DataConfig(data_dir={str(tmp_path)!r}), LabelConfig())))
heavy = {{"tensorflow", "tensorflow_datasets", "keras", "pyarrow", "pandas"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
