"""What a file is: told by its name, its first bytes and the flags; every guess is said."""

import bz2
import csv
import gzip
import io
import lzma
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_finetune.data.file_format import FileFormat, find_format
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import load_data
from tf_finetune.data.readers import read_file
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

PLAIN = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def found(path: Path, content: str | bytes, **flags: str) -> tuple[list[dict], FileFormat]:
    file = find_format(write(path, content), DataConfig(**flags))
    return [row for _, row in read_file(file)], file


def complaint(path: Path, content: str | bytes, **flags: str) -> str:
    with pytest.raises(UserError) as caught:
        found(path, content, **flags)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "text,label\na,x\nb,y\n", ""),
        ("a.csv", "text;label\na;x\nb;y\n", "separated by ';'"),
        ("a.csv", "text\tlabel\na\tx\nb\ty\n", "separated by a tab"),
        ("a.csv", "text|label\na|x\nb|y\n", "separated by '|'"),
        ("a.csv", "sep=;\ntext;label\na;x\nb;y\n", "its first line says that ';'"),
        ("a.csv", '"sep=|"\ntext|label\na|x\nb|y\n', "its first line says that '|'"),
        ("a.tsv", "text\tlabel\na\tx\nb\ty\n", ""),
        ("a.tsv", "text,label\na,x\nb,y\n", "separated by ','"),
        ("a.tab", "text;label\na;x\nb;y", "separated by ';'"),
        ("a.CSV", "text;label\r\na;x\r\nb;y\r\n", "separated by ';'"),
        ("a.tsv", "\ufefftext;label\na;x\nb;y\n", "separated by ';'"),
    ],
)
def test_separators_are_found_and_told(tmp_path: Path, name: str, content: str, said: str) -> None:
    rows, file = found(tmp_path / name, content)
    assert rows == PLAIN
    assert [said in notice for notice in file.notices] == ([True] if said else [])


def test_a_separator_in_the_texts_is_none(tmp_path: Path) -> None:
    rows, file = found(tmp_path / "a.csv", "text;label\na, b;x\nc;y\nd, e, f;y\n")
    assert [row["text"] for row in rows] == ["a, b", "c", "d, e, f"]
    rows, file = found(tmp_path / "a.csv", "text\na; b\nc; d\n")
    assert rows == [{"text": "a; b"}, {"text": "c; d"}] and not file.notices
    rows, file = found(tmp_path / "a.tsv", "text\tlabel\na;b, c\tx\nd;e\ty\n")
    assert rows[0] == {"text": "a;b, c", "label": "x"} and not file.notices


def test_two_separators_that_both_fit_are_refused(tmp_path: Path) -> None:
    message = complaint(tmp_path / "a.csv", "text;a|label\na;b|c\nb;c|d\n")
    assert "';' (2 columns) or '|' (2 columns)" in message and "--field_separator" in message
    rows, _ = found(tmp_path / "a.csv", "text;a|label\na;b|c\n", field_separator="bar")
    assert rows == [{"text;a": "a;b", "label": "c"}]


@pytest.mark.parametrize(
    ("flag", "mark"), [("^", "^"), ("space", " "), ("tab", "\t"), ("comma", ","), ("bar", "|")]
)
def test_a_separator_that_is_said(tmp_path: Path, flag: str, mark: str) -> None:
    content = f"text{mark}label\na{mark}x\nb{mark}y\n"
    rows, file = found(tmp_path / "a.csv", content, field_separator=flag)
    assert rows == PLAIN and not file.notices


def test_a_separator_of_two_characters_is_refused(tmp_path: Path) -> None:
    message = complaint(tmp_path / "a.csv", "text||label\na||x\n", field_separator="||")
    assert "--field_separator=||: allowed are one character" in message


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        # As pandas writes it: what holds a quote, a tab or a line end is quoted.
        ('"he said ""oh"""\tx\nplain\ty\n', ['he said "oh"', "plain"]),
        ('"two\nlines"\tx\nplain\ty\n', ["two\nlines", "plain"]),
        ('"a\ttab"\tx\nplain\ty\n', ["a\ttab", "plain"]),
        ('"""so-called"" plot"\tx\n"b"\ty\n', ['"so-called" plot', "b"]),
    ],
)
def test_a_tsv_with_quoted_cells(tmp_path: Path, content: str, texts: list[str]) -> None:
    rows, file = found(tmp_path / "a.tsv", f"text\tlabel\n{content}")
    assert [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows] == ["x", "y"]
    [notice] = file.notices
    assert "in quotes are read without them" in notice and "--quoting=minimal" in notice
    assert not file.has_blocks  # A quoted cell may hold a line end.


def test_a_tsv_that_is_quoted_throughout(tmp_path: Path) -> None:
    rows, file = found(tmp_path / "a.tsv", '"text"\t"label"\n"a"\t"x"\n"b"\t"y"\n')
    assert rows == PLAIN and "read without them" in file.notices[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('"open\tx\nit\'s "so"\ty\n', 0),
        ('he said "no"\tx\nplain\ty\n', 0),
        ('""\tx\nplain "\ty\n', 1),
        ('"Hello"\tx\nplain\ty\n', 1),
    ],
)
def test_quotes_of_a_tsv_that_are_text(tmp_path: Path, content: str, said: int) -> None:
    rows, file = found(tmp_path / "a.tsv", f"text\tlabel\n{content}")
    expected = [line.split("\t")[0] for line in content.splitlines()]
    assert [row["text"] for row in rows] == expected
    assert len(file.notices) == said and file.has_blocks


def test_quoting_that_is_said(tmp_path: Path) -> None:
    content = 'text\tlabel\n"he said ""oh"""\tx\n"Hello"\ty\n'
    rows, file = found(tmp_path / "a.tsv", content, quoting="none")
    assert rows[0]["text"] == '"he said ""oh"""' and not file.notices
    rows, file = found(tmp_path / "a.tsv", 'text\tlabel\n"Hello"\tx\n', quoting="minimal")
    assert rows[0]["text"] == "Hello" and not file.notices
    rows, _ = found(tmp_path / "a.csv", 'text,label\n"Hello",x\n', quoting="none")
    assert rows[0]["text"] == '"Hello"'


def test_quotes_of_a_csv_that_are_text(tmp_path: Path) -> None:
    rows, file = found(tmp_path / "a.csv", 'text,label\n"oh" she said,x\n"no" too,y\n')
    assert rows[0]["text"] == '"oh" she said' and "--quoting=none" in file.notices[0]
    # An open quote is an error of the file, as is one after a backslash.
    for cell in ('"open', '"a \\"b\\" c"'):
        message = complaint(tmp_path / "a.csv", f"text,label\n{cell},x\n")
        assert "a.csv:2: the row that begins here is not valid CSV" in message
        assert "--quoting=none" in message


def test_a_ragged_row_of_a_tsv_names_quoting(tmp_path: Path) -> None:
    content = "text\tlabel\n" + "plain\tx\n" * 600_000 + '"two\nlines"\ty\n'
    message = complaint(tmp_path / "a.tsv", content)
    assert "a.tsv:600002: 1 columns found, 2 expected" in message and "--quoting=minimal" in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "text, label\na, x\nb, y\n", [("a", " x"), ("b", " y")]),
        ("a.tsv", "text \t label\na\tx\n", [("a", "x")]),
        ("a.csv", 'text, label\n"a", "x, z"\n"b", "y"\n', [("a", "x, z"), ("b", "y")]),
        ("a.csv", '"text" , "label"\n"a, ""b""" , "x"\n"c" , "y"\n', [('a, "b"', "x"), ("c", "y")]),
    ],
)
def test_blanks_around_names_and_quotes(
    tmp_path: Path, name: str, content: str, expected: list[tuple[str, str]]
) -> None:
    rows, file = found(tmp_path / name, content)
    assert [(row["text"], row["label"]) for row in rows] == expected
    [notice] = file.notices
    assert "blanks around" in notice and "are dropped" in notice


@pytest.mark.parametrize(
    "content",
    [
        "1,Title,what a good film\n2,Other,a boring plot\n1,Third,great fun\n",
        "good,a fine film\nbad,a dull film\ngood,another one\n",
        "a film that is fine for all,x\na film that is fine for none,y\n",
        "2023-01-01,0.5,a\n2023-01-02,0.7,b\n",
        "a,a,b\nc,d,e\n",
    ],
)
def test_a_first_row_that_looks_like_data_is_told(tmp_path: Path, content: str) -> None:
    if content.startswith("a,a"):
        message = complaint(tmp_path / "a.csv", content)
        assert "two columns are named 'a'" in message and "--header=none" in message
    else:
        rows, file = found(tmp_path / "a.csv", content)
        assert len(rows) == content.count("\n") - 1
        assert "--header=none" in file.notices[0] and "--header=first_row" in file.notices[0]
        _, file = found(tmp_path / "a.csv", content, header="first_row")
        assert not file.notices
    rows, file = found(tmp_path / "a.csv", content, header="none")
    assert len(rows) == content.count("\n") and not file.notices
    assert list(rows[0]) == [str(n + 1) for n in range(len(rows[0]))]
    assert rows[0]["1"] == content.split(",")[0]


@pytest.mark.parametrize(
    "content",
    [
        ",text,label\n0,a,x\n1,b,y\n",  # pandas' index
        "text,2019,label\na,1,x\nb,2,y\n",
        "text,label,\na,x,\nb,y,\n",
        "0,1\na,x\nb,y\n",  # pandas' numbered columns
        "How satisfied are you with our service today,label\ngood,1\nbad,0\n",
        "text,label\na,1\nb,0\n",
        "id,text,label\n1,a,x\n",
    ],
)
def test_a_header_is_a_header(tmp_path: Path, content: str) -> None:
    _, file = found(tmp_path / "a.csv", content)
    assert not file.notices


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t")])
def test_column_names_that_stand_in_the_file_again(tmp_path: Path, name: str, mark: str) -> None:
    for again in (f"text{mark}label", f"\ufefftext{mark}label", f" text {mark} label"):
        content = f"text{mark}label\na{mark}x\n{again}\nb{mark}y\n"
        message = complaint(tmp_path / name, content)
        assert f"{name}:3: the column names stand here again" in message


def test_a_header_line_where_none_was_said_is_told(tmp_path: Path) -> None:
    rows, file = found(tmp_path / "a.csv", "label,text\n1,a\n0,b\n", header="none")
    assert len(rows) == 3 and "--header=first_row" in file.notices[0]
    for content in ("text\nfoo\nbar\n", "id,text\nq1,foo\nq2,bar\n"):
        _, file = found(tmp_path / "a.csv", content, header="none")
        assert "--header=first_row" in file.notices[0]
    assert not found(tmp_path / "a.csv", "q1,foo\nq2,bar\n", header="none")[1].notices


def test_columns_without_a_name(tmp_path: Path) -> None:
    rows, file = found(tmp_path / "a.csv", "v1,v2,,,\nham,hello,,,\nspam,win,,,\n")
    assert rows[0]["v1"] == "ham" and rows[0]["v2"] == "hello" and not file.notices


@pytest.mark.parametrize("content", ['{"text": "a", "label": "x"}\n', '[{"text": "a"}]\n'])
def test_json_under_the_name_of_a_table(tmp_path: Path, content: str) -> None:
    assert "looks like JSON" in complaint(tmp_path / "a.csv", content)


def test_quotes_that_may_end_lines_or_be_text_are_refused(tmp_path: Path) -> None:
    content = 'text,label\n"Unclosed start,pos\ngood film,neg\nends with quote",pos\nlast,neg\n'
    message = complaint(tmp_path / "a.csv", content)
    assert "--quoting=minimal or --quoting=none" in message
    assert len(found(tmp_path / "a.csv", content, quoting="none")[0]) == 4
    assert len(found(tmp_path / "a.csv", content, quoting="minimal")[0]) == 2
    # It is seen in the first part of a larger file too.
    content += "more,neg\n" * 500_000
    assert "--quoting=minimal or" in complaint(tmp_path / "a.csv", content)


@pytest.mark.parametrize(
    ("content", "row"),
    [
        ('label, text\npos, "good film"\nneg, "bad film"\n', {"label": "pos", "text": "good film"}),
        ('text, label\n"a, b", "x"\n', {"text": "a, b", "label": "x"}),
        ('"text", "label"\n"a", "x"\n', {"text": "a", "label": "x"}),
    ],
)
def test_blanks_before_quotes(tmp_path: Path, content: str, row: dict) -> None:
    rows, file = found(tmp_path / "a.csv", content)
    assert rows[0] == row and "blanks around the quotes" in " ".join(file.notices)


def test_a_quoted_tsv_with_one_wrong_quote_is_told(tmp_path: Path) -> None:
    rows, file = found(tmp_path / "a.tsv", 'text\tlabel\n"abc"\t"x"\n"5" tall"\t"y"\n')
    assert rows[0]["label"] == '"x"' and "do not pair up" in file.notices[0]


def test_small_files_are_quoted_as_others_of_the_run(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", 'text\tlabel\n"he said ""oh"""\tx\nb\ty\n')
    write(tmp_path / "test.tsv", 'text\tlabel\n"plain"\tx\n')
    data = load_data(DataConfig(data_dir=str(tmp_path)), LabelConfig())
    assert data.train and data.train.texts[0][0] == 'he said "oh"'
    assert data.test and data.test.texts[0] == ["plain"]
    assert data.found == {"quoting": "minimal"}
    assert any("test.tsv" in n and "another file of the run" in n for n in data.notices)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_lines_that_end_in_a_carriage_return_alone(tmp_path: Path, name: str) -> None:
    lines = {
        "a.csv": ["text,label", "a,x", "b,y"],
        "a.tsv": ["text\tlabel", "a\tx", "b\ty"],
        "a.jsonl": ['{"text": "a", "label": "x"}', '{"text": "b", "label": "y"}'],
    }[name]
    for last in ("", "\r"):
        rows, file = found(tmp_path / name, "\r".join(lines) + last)
        assert rows == PLAIN and "carriage return" in file.notices[0] and not file.has_blocks


def test_carriage_returns_within_cells_are_text(tmp_path: Path) -> None:
    rows, file = found(tmp_path / "a.tsv", "text\tlabel\na\rb\tx\n")
    assert rows == [{"text": "a\rb", "label": "x"}] and not file.notices


PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("named", [True, False])
def test_compression_is_told_by_content(tmp_path: Path, ending: str, named: bool) -> None:
    for name, content in (
        ("a.csv", b"text;label\na;x\nb;y\n"),
        ("a.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'),
        ("a.JSON", b'[{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]'),
    ):
        rows, file = found(tmp_path / f"{name}{ending * named}", PACK[ending](content))
        assert rows == PLAIN and file.compressed and not file.has_blocks


def test_what_is_named_gz_need_not_be_packed(tmp_path: Path) -> None:
    assert found(tmp_path / "a.csv.gz", "text,label\na,x\nb,y\n")[0] == PLAIN


@pytest.mark.parametrize("ending", PACK)
def test_damaged_archives(tmp_path: Path, ending: str) -> None:
    whole = PACK[ending](b"text\tlabel\n" + b"".join(b"%d\tx\n" % n for n in range(5000)))
    for content in (whole[:-9], whole[: len(whole) // 2]):
        assert "cannot be read" in complaint(tmp_path / f"a.tsv{ending}", content)


@pytest.mark.parametrize("name", ["a.csv.zip", "a.csv"])
def test_a_zip_archive_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    assert "zip archive. Unpack it" in complaint(tmp_path / name, b"PK\x03\x04 and so on")


CELLS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r\n", exclude_categories=["Cs"]),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8),
    mark=st.sampled_from(",;|\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    ending=st.sampled_from([".csv", ".tsv"]),
)
def test_what_a_csv_writer_wrote_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    mark: str,
    quoting: int,
    ending: str,
) -> None:
    """With its separator said, any table comes back; without, it comes back or a notice is due."""
    out = io.StringIO()
    csv.writer(out, delimiter=mark, quoting=quoting, lineterminator="\n").writerows(
        [("text", "label"), *rows]
    )
    path = tmp_path_factory.mktemp("csv") / f"a{ending}"
    expected = [{"text": text, "label": label} for text, label in rows]
    named = "tab" if mark == "\t" else mark
    again, _ = found(path, out.getvalue(), field_separator=named, quoting="minimal")
    assert again == expected
    try:
        again, file = found(path, out.getvalue())
    except UserError:
        return
    assert again == expected or file.notices or ending == ".tsv"
