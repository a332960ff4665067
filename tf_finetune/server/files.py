"""`Files` on disk by their ids, and the endpoints of files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from tf_finetune.files import make_dirs, remove, replaced_file
from tf_finetune.server.failures import ApiError, not_found
from tf_finetune.server.pages import listed
from tf_finetune.server.store import Store, new_id
from tf_finetune.server.uploads import Upload, receive

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": ["fine-tune"]},
                    },
                }
            }
        },
    }
}


class Files:
    """The files: contents in a folder under their ids, the rest in the store.

    A row is added only after the bytes are on the disk, and removed before them. So a server that
    is killed leaves at most bytes without a row, which the next one removes.

    Args:
        folder: Of the contents.
        store: Of the rows.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self._store = folder, store
        make_dirs(str(folder))
        known = {row["id"] for row in store.find("files")}
        for path in folder.iterdir():
            if path.name not in known:
                remove(str(path))

    def path(self, name: str) -> Path:
        """Returns where a file's content is; the id must be one of the store."""
        return self.folder / name

    def find(self, name: str, param: str = "file_id") -> dict[str, Any]:
        """Returns a file's row.

        Raises:
            ApiError: There is none.
        """
        rows = self._store.find("files", id=name)
        if not rows:
            raise not_found("File object", name, param)
        return rows[0]

    def keep(self, upload: Upload, purpose: str) -> dict[str, Any]:
        """Keeps what was uploaded, and returns its row."""
        name = new_id("file-")
        os.replace(upload.path, self.path(name))
        return self._add(name, str(upload.filename), purpose, upload.size, upload.rows)

    def write(self, filename: str, text: str, purpose: str) -> dict[str, Any]:
        """Makes a file of a text, and returns its row."""
        name, content = new_id("file-"), text.encode()
        with replaced_file(self.path(name)) as file:
            file.write(content)
        return self._add(name, filename, purpose, len(content), text.count("\n"))

    def delete(self, name: str) -> None:
        """Removes a file; jobs that were made of it have it still.

        Raises:
            ApiError: There is none.
        """
        if not self._store.remove("files", id=name):
            raise not_found("File object", name, "file_id")
        remove(str(self.path(name)))

    def _add(self, name: str, filename: str, purpose: str, size: int, rows: int) -> dict[str, Any]:
        sync_folder(self.folder)
        self._store.add("files", id=name, filename=filename, purpose=purpose, bytes=size, rows=rows)
        return self.find(name)


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_router(files: Files, store: Store, max_bytes: int) -> APIRouter:
    """Makes the endpoints of files.

    Args:
        files: The contents.
        store: The rows.
        max_bytes: The largest file that is taken.
    """
    router = APIRouter(prefix="/files", tags=["files"])

    @router.post("", openapi_extra=_FORM)
    async def create(request: Request) -> dict[str, Any]:
        upload = await receive(request, files.folder, max_bytes)
        try:
            purpose = _purpose(upload)
            return _shown(await run_in_threadpool(files.keep, upload, purpose))
        finally:
            remove(str(upload.path))

    @router.get("")
    def list_files(
        purpose: str | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Literal["asc", "desc"] = "desc",
    ) -> dict[str, Any]:
        where = {} if purpose is None else {"purpose": purpose}
        page = store.page("files", after, limit, where, is_ascending=order == "asc")
        return listed(page, _shown, after)

    @router.get("/{file_id}")
    def retrieve(file_id: str) -> dict[str, Any]:
        return _shown(files.find(file_id))

    @router.delete("/{file_id}")
    def delete(file_id: str) -> dict[str, Any]:
        files.delete(file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    @router.get("/{file_id}/content", response_class=FileResponse)
    def content(file_id: str) -> FileResponse:
        files.find(file_id)
        return FileResponse(files.path(file_id), media_type="application/octet-stream")

    return router


def _purpose(upload: Upload) -> str:
    purpose = upload.fields.pop("purpose", None)
    if purpose != "fine-tune":
        raise ApiError(
            400, f"The purpose is {purpose!r:.80}; fine-tune is the one supported.", "purpose"
        )
    if upload.fields:
        names = ", ".join(upload.fields)
        raise ApiError(400, f"Not supported: {names:.200}.", next(iter(upload.fields))[:80])
    if not str(upload.filename).endswith(".jsonl"):
        raise ApiError(
            400,
            f"The file is named {upload.filename!r:.200}; files for fine-tuning are JSON lines, "
            "with names that end in .jsonl.",
            "file",
            "invalid_file_format",
        )
    if not upload.size:
        raise ApiError(400, "The file is empty.", "file", "empty_file")
    return purpose


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "bytes", "created_at", "filename", "purpose", "rows")
    return {"object": "file", "status": "processed", "status_details": None, "expires_at": None} | {
        name: row[name] for name in names
    }
