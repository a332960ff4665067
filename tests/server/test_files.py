"""Files by OpenAI's client, and uploads that are broken or too large."""

import httpx
import openai
import pytest

from tests.generation.conftest import day_rows, write_lines
from tests.server.conftest import polls

LARGEST = 1 << 20


@pytest.fixture(scope="module")
def server(start_server):
    return start_server("--max_file_mb=1")


def leftovers(server) -> list[str]:
    return [path.name for path in (server.folder / "files").iterdir() if path.name[0] == "."]


def post(server, content, content_type="multipart/form-data; boundary=x"):
    with httpx.Client(trust_env=False) as http:
        headers = {"Content-Type": content_type}
        return http.post(f"{server.url}/files", content=content, headers=headers, timeout=60)


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    more = f'; filename="{filename}"' if filename is not None else ""
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


PURPOSE = part("purpose", b"fine-tune")
END = b"--x--\r\n"


def test_a_file_comes_back_byte_for_byte(server, client, tmp_path):
    path = write_lines(tmp_path / "días.jsonl", day_rows(12))
    file = client.files.create(file=path, purpose="fine-tune")
    assert file.id.startswith("file-") and file.bytes == path.stat().st_size
    assert (file.filename, file.purpose, file.status) == ("días.jsonl", "fine-tune", "processed")
    assert file.rows == 12
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == path.read_bytes()
    assert client.files.wait_for_processing(file.id) == file
    assert client.files.delete(file.id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=file.id):
            call(file.id)
    assert not (server.folder / "files" / file.id).exists()


def test_the_list_has_pages_newest_first(server, client):
    made = [
        client.files.create(file=(f"{n}.jsonl", b"{}\n"), purpose="fine-tune").id for n in range(5)
    ]
    found = client.files.list(limit=2)
    assert [file.id for file in found.data] == made[:2:-1] and found.has_more
    assert [file.id for file in client.files.list(limit=2)] == made[::-1]
    assert [file.id for file in client.files.list(limit=2, order="asc")] == made
    assert list(client.files.list(purpose="fine-tune-results")) == []
    with pytest.raises(openai.BadRequestError, match="file-none") as refused:
        client.files.list(after="file-none")
    assert refused.value.param == "after"
    for name in made:
        client.files.delete(name)


@pytest.mark.parametrize("name", ["../../../etc/x.jsonl", "/etc/x.jsonl", "..\\x.jsonl"])
def test_a_name_is_no_path(name, server, client):
    response = post(server, PURPOSE + part("file", b"{}\n", name) + END)
    assert response.status_code == 200 and response.json()["filename"] == "x.jsonl"
    assert not list(server.folder.parent.rglob("x.jsonl"))
    client.files.delete(response.json()["id"])


@pytest.mark.parametrize("path", ["..%2f..%2fserver.sqlite", "%2e%2e", "file-%00", "server.lock"])
def test_an_id_is_no_path(path, server):
    with httpx.Client(trust_env=False) as http:
        response = http.get(f"{server.url}/files/{path}/content")
    assert response.status_code == 404 and response.json()["error"]["message"]


def test_the_largest_file_is_taken_and_one_byte_more_is_not(server, client):
    row = b"x" * (LARGEST - 1) + b"\n"
    file = client.files.create(file=("a.jsonl", row), purpose="fine-tune")
    assert file.bytes == LARGEST
    client.files.delete(file.id)
    with pytest.raises(openai.APIStatusError, match="larger than 1 MiB") as refused:
        client.files.create(file=("a.jsonl", row + b"x"), purpose="fine-tune")
    assert refused.value.status_code == 413 and refused.value.code == "file_too_large"
    # Much larger: the answer comes before the body has gone.
    with pytest.raises(openai.APIStatusError, match="larger than 1 MiB"):
        client.files.create(file=("a.jsonl", row * 64), purpose="fine-tune")
    assert not leftovers(server)


def test_an_upload_without_an_end_is_bounded_while_it_comes(server):
    sent = 0

    def endless():
        nonlocal sent
        yield PURPOSE + part("file", b"", "a.jsonl").removesuffix(b"\r\n")
        while True:
            sent += 1 << 16
            yield b"{}\n" * (1 << 14)

    try:
        response = post(server, endless())
        assert response.status_code == 413
    except httpx.TransportError:
        pass  # The server has hung up before the client has read.
    assert sent < 100 * LARGEST
    for _ in polls():
        if not leftovers(server):
            break
    assert not leftovers(server) and server.client.models.list()


def test_a_client_that_goes_away_leaves_nothing(server):
    def broken():
        yield PURPOSE + part("file", b"{}\n" * 1000, "a.jsonl").removesuffix(b"\r\n")
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        post(server, broken())
    for _ in polls():
        if not leftovers(server):
            break
    assert not leftovers(server) and list(server.client.files.list()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PURPOSE + END, "no part 'file'"),
        (PURPOSE + part("file", b"", "a.jsonl") + END, "file is empty"),
        (PURPOSE + part("file", b"{}", "a.csv") + END, "end in .jsonl"),
        (part("file", b"{}", "a.jsonl") + END, "purpose is None"),
        (part("purpose", b"vision") + part("file", b"{}", "a.jsonl") + END, "'vision'"),
        (PURPOSE + part("file", b"{}", "a.jsonl") * 2 + END, "two files"),
        (PURPOSE + part("purpose", b"x" * 70000) + END, "too long"),
        (
            PURPOSE + part("expires_after[seconds]", b"9") + part("file", b"{}", "a.jsonl") + END,
            "Not supported: expires_after",
        ),
        (PURPOSE + part("file", b"{}", "a.jsonl"), "ends before"),
        (b"nothing of the kind", "cannot be read"),
        (b"", "ends before"),
    ],
)
def test_a_broken_form_is_refused(content, said, server):
    response = post(server, content)
    assert response.status_code == 400
    error = response.json()["error"]
    assert said in error["message"] and error["type"] == "invalid_request_error"
    assert not leftovers(server)


def test_other_bodies_than_forms_are_refused(server):
    assert post(server, b"{}", "application/json").status_code == 400
    assert post(server, b"{}", "multipart/form-data").status_code == 400


def test_bytes_of_a_killed_server_without_a_row_are_removed(server, client):
    file = client.files.create(file=("a.jsonl", b"{}\n"), purpose="fine-tune")
    server.kill()
    folder = server.folder / "files"
    (folder / ".upload-abc").write_bytes(b"half")
    (folder / "file-without").write_bytes(b"a row")
    server.start()
    assert [path.name for path in folder.iterdir()] == [file.id]
    assert server.client.files.content(file.id).read() == b"{}\n"
