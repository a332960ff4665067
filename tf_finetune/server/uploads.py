"""Takes a multipart upload: its file goes to disk as it comes, never more than is allowed."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from tf_finetune.files import remove
from tf_finetune.server.failures import ApiError

# Of all that is not the file: headers of parts, fields.
_MOST_OTHER = 1 << 16
PREFIX = ".upload-"


@dataclass
class Upload:
    """What was uploaded.

    Attributes:
        path: The temporary file with the content.
        filename: The client's name of it: a text, never a path.
        fields: The form's other fields.
        size: Its bytes.
        rows: Its lines.
    """

    path: Path
    filename: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    size: int = 0
    rows: int = 0


async def receive(request: Request, folder: Path, max_bytes: int) -> Upload:
    """Reads a form with one file.

    Args:
        request: The request; its body is read as it comes.
        folder: Gets the file. The caller renames or removes it.
        max_bytes: The largest file that is taken.

    Raises:
        ApiError: No form, a broken one, one without a file, or a file that is too large.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if content_type != b"multipart/form-data" or not boundary:
        raise ApiError(400, "The body must be multipart/form-data with a file and its purpose.")
    if int(request.headers.get("content-length") or 0) > max_bytes + _MOST_OTHER:
        raise too_large(max_bytes)
    handle, name = tempfile.mkstemp(dir=folder, prefix=PREFIX)
    upload = Upload(Path(name))
    try:
        with os.fdopen(handle, "wb") as file:
            parts = _Parts(upload, file, max_bytes)
            parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
            async for chunk in request.stream():
                parts.count(chunk)
                parser.write(chunk)
            parser.finalize()
            if not parts.is_whole:
                raise ApiError(400, "The form ends before its last part does.")
            file.flush()
            os.fsync(file.fileno())
        if upload.filename is None:
            raise ApiError(400, "The form has no part 'file' with a file name.", "file")
        if parts.last != b"\n" and upload.size:
            upload.rows += 1
        return upload
    except FormParserError as error:
        remove(name)
        raise ApiError(400, f"The form cannot be read: {error}.") from None
    except ClientDisconnect:
        remove(name)
        raise ApiError(400, "The client went away before the file was whole.") from None
    except BaseException:
        remove(name)
        raise


def too_large(max_bytes: int) -> ApiError:
    """Returns the error for a file that is larger than allowed."""
    return ApiError(
        413,
        f"The file is larger than {max_bytes >> 20} MiB. Divide it, or start the server with a "
        "larger --max_file_mb.",
        "file",
        "file_too_large",
    )


class _Parts:
    """What the parser calls: parts of the form, one after the other."""

    def __init__(self, upload: Upload, file: IO[bytes], max_bytes: int) -> None:
        self._upload, self._file, self._max_bytes = upload, file, max_bytes
        self._key, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._name, self._is_file, self._field = "", False, b""
        self._all = 0
        self.last = b""
        self.is_whole = False

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def count(self, chunk: bytes) -> None:
        """Counts what has come, of which the file is the largest part."""
        self._all += len(chunk)
        if self._all > self._max_bytes + _MOST_OTHER:
            raise too_large(self._max_bytes)

    def _begin(self) -> None:
        self._headers, self._field = {}, b""
        self._name, self._is_file = "", False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._key += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._key.lower()] = self._value
        self._key, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._name = options.get(b"name", b"").decode(errors="replace")
        self._is_file = self._name == "file" and b"filename" in options
        if self._is_file:
            if self._upload.filename is not None:
                raise ApiError(400, "The form has two files; give one.", "file")
            name = options[b"filename"].decode(errors="replace")
            # Only shown: the file itself is named by its id.
            self._upload.filename = name.replace("\\", "/").rpartition("/")[2][:255] or "file"

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = data[start:end]
        if not self._is_file:
            self._field += part
            if len(self._field) > _MOST_OTHER:
                raise ApiError(400, f"The field {self._name!r:.80} is too long.", self._name)
            return
        upload = self._upload
        upload.size += len(part)
        if upload.size > self._max_bytes:
            raise too_large(self._max_bytes)
        upload.rows += part.count(b"\n")
        self.last = part[-1:] or self.last
        self._file.write(part)

    def _end(self) -> None:
        if not self._is_file:
            self._upload.fields[self._name] = self._field.decode(errors="replace")

    def _finish(self) -> None:
        self.is_whole = True
