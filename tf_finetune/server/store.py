"""`Store`: files, jobs, events and checkpoints in SQLite.

Every change is one transaction, so that a server that is killed at any moment finds a state that
was whole.
"""

import json
import secrets
import sqlite3
import string
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

Table = Literal["files", "jobs", "events", "checkpoints"]
FINISHED = ("succeeded", "failed", "cancelled")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL,
    filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL, rows INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL,
    model TEXT NOT NULL, handle TEXT NOT NULL, init_from TEXT, status TEXT NOT NULL,
    paused INTEGER NOT NULL DEFAULT 0, training_file TEXT NOT NULL, validation_file TEXT,
    suffix TEXT, seed INTEGER NOT NULL, method TEXT NOT NULL, hyperparameters TEXT NOT NULL,
    metadata TEXT, kind TEXT, pid INTEGER, reported TEXT NOT NULL DEFAULT '{}',
    estimated_finish INTEGER, finished_at INTEGER, error TEXT, fine_tuned_model TEXT UNIQUE,
    deleted INTEGER NOT NULL DEFAULT 0, result_file TEXT, trained_tokens INTEGER
);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL,
    job_id TEXT NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL, type TEXT NOT NULL, data TEXT
);
CREATE INDEX IF NOT EXISTS events_of_job ON events (job_id, number);
CREATE TABLE IF NOT EXISTS checkpoints (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL,
    job_id TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL, UNIQUE (job_id, step)
);
"""
_JSON = ("hyperparameters", "metadata", "reported", "error", "data", "metrics")
_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Job:
    """A fine-tuning job, as the table has it.

    Attributes:
        number: Counts the jobs.
        id: OpenAI's, `ftjob-...`.
        created_at: Seconds since 1970, as all times.
        model: The name that the client gave: of a base model or a tuned one.
        handle: That of the base model.
        init_from: The id of the job whose model is trained further; None: the base.
        status: OpenAI's; a job that is paused is queued.
        paused: Whether it waits to be resumed.
        training_file: The file's id.
        validation_file: The file's id.
        suffix: A part of the tuned model's name.
        seed: Of the training.
        method: `supervised` or `dpo`.
        hyperparameters: As asked for; once the file was read, `auto` is replaced by numbers.
        metadata: The client's.
        kind: `generator` or `classifier`; None until the files were read.
        pid: The process that trains; None: none was started since the last one's end.
        reported: The last step of each split that events tell of.
        estimated_finish: The time when the training may end.
        finished_at: The time of its end.
        error: Why it failed: `code`, `message`, `param`.
        fine_tuned_model: The tuned model's name.
        deleted: Whether the tuned model was deleted.
        result_file: The id of the file of its metrics.
        trained_tokens: Of all epochs.
    """

    number: int
    id: str
    created_at: int
    model: str
    handle: str
    init_from: str | None
    status: str
    paused: bool
    training_file: str
    validation_file: str | None
    suffix: str | None
    seed: int
    method: str
    hyperparameters: dict[str, Any]
    metadata: dict[str, str] | None
    kind: Literal["generator", "classifier"] | None
    pid: int | None
    reported: dict[str, int]
    estimated_finish: int | None
    finished_at: int | None
    error: dict[str, Any] | None
    fine_tuned_model: str | None
    deleted: bool
    result_file: str | None
    trained_tokens: int | None


@dataclass(frozen=True)
class Event:
    """What happened to a job.

    Attributes:
        message: For people.
        level: `info`, `warn` or `error`.
        data: Metrics, for programs; None: there are none.
    """

    message: str
    level: str = "info"
    data: Mapping[str, Any] | None = None


class Store:
    """The tables; all methods may be called from any thread.

    Args:
        path: SQLite's file; it is made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes the changes of a block one: all are kept, or none."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def add(self, table: Table, prefix: str = "", **values: Any) -> str:
        """Adds a row and returns its id.

        Args:
            table: The table.
            prefix: Of the id, such as `file-`, unless `id` is among the values.
            **values: By column.
        """
        values = {"id": new_id(prefix), "created_at": int(time.time()), **_encoded(values)}
        marks = ", ".join("?" * len(values))
        with self.transaction():
            self._db.execute(
                f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", [*values.values()]
            )
        return str(values["id"])

    def find(self, table: Table, **values: Any) -> list[dict[str, Any]]:
        """Returns the rows that have these values, oldest first."""
        where = " AND ".join(["1", *(f"{name} = ?" for name in values)])
        return self._rows(f"SELECT * FROM {table} WHERE {where} ORDER BY number", values.values())

    def page(
        self,
        table: Table,
        after: str | None,
        limit: int,
        where: Mapping[str, Any],
        *,
        is_ascending: bool = False,
    ) -> tuple[list[dict[str, Any]], bool] | None:
        """Returns a page of the rows that have some values, and whether more follow.

        Args:
            table: The table.
            after: The id of the row before the page; None: the first page.
            limit: The most rows.
            where: The values by column; of an object in a column each pair must be there.
            is_ascending: Whether the oldest come first.

        Returns:
            The page; None: there is no such row before it.
        """
        sign, order = (">", "ASC") if is_ascending else ("<", "DESC")
        conditions, given = ["1"], []
        for column, value in where.items():
            if not isinstance(value, dict):
                conditions.append(f"{column} = ?")
                given.append(value)
            for pair in value.items() if isinstance(value, dict) else ():
                inner = f"SELECT 1 FROM json_each({column}) WHERE key = ? AND value = ?"
                conditions.append(f"EXISTS ({inner})")
                given += pair
        if after is not None:
            rows = self._rows(f"SELECT number FROM {table} WHERE id = ?", [after])
            if not rows:
                return None
            conditions.append(f"{table}.number {sign} {rows[0]['number']}")
        chosen = f"SELECT * FROM {table} WHERE {' AND '.join(conditions)}"
        rows = self._rows(f"{chosen} ORDER BY {table}.number {order} LIMIT ?", [*given, limit + 1])
        return rows[:limit], len(rows) > limit

    def remove(self, table: Table, **values: Any) -> bool:
        """Removes the rows that have these values, and returns whether there was one."""
        where = " AND ".join(f"{name} = ?" for name in values)
        with self.transaction():
            done = self._db.execute(f"DELETE FROM {table} WHERE {where}", [*values.values()])
        return done.rowcount > 0

    def job(self, name: str) -> Job | None:
        """Returns a job by its id."""
        return next(iter(self.jobs("id = ?", name)), None)

    def jobs(self, where: str, *values: Any) -> list[Job]:
        """Returns the jobs that a condition of SQL holds for, oldest first."""
        rows = self._rows(f"SELECT * FROM jobs WHERE {where} ORDER BY number", values)
        return list(map(job_of, rows))

    def change(self, name: str, statuses: Sequence[str], **values: Any) -> bool:
        """Changes a job, if its status is still one of those given.

        Args:
            name: The job's id.
            statuses: The statuses from which it may be changed.
            **values: By column.

        Returns:
            Whether it was changed.
        """
        encoded = _encoded(values)
        marks = ", ".join(f"{column} = ?" for column in encoded)
        places = ", ".join("?" * len(statuses))
        with self.transaction():
            done = self._db.execute(
                f"UPDATE jobs SET {marks} WHERE id = ? AND status IN ({places})",
                [*encoded.values(), name, *statuses],
            )
        return done.rowcount > 0

    def tell(self, job: str, *events: Event) -> None:
        """Adds events to a job."""
        with self.transaction():
            for event in events:
                self.add(
                    "events",
                    "ftevent-",
                    job_id=job,
                    level=event.level,
                    message=event.message,
                    type="message" if event.data is None else "metrics",
                    data=event.data,
                )

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    def _rows(self, query: str, values: Any) -> list[dict[str, Any]]:
        with self._lock:
            return [_decoded(dict(row)) for row in self._db.execute(query, [*values])]


def new_id(prefix: str) -> str:
    """Returns a new id that nobody can guess, such as `file-` and 24 letters and digits."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(24))


def job_of(row: Mapping[str, Any]) -> Job:
    """Returns the job that a row of the table holds."""
    found = {field.name: row[field.name] for field in fields(Job)}
    return Job(**found | {name: bool(found[name]) for name in ("paused", "deleted")})


def _encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(value) if name in _JSON and value is not None else value
        for name, value in values.items()
    }


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: json.loads(value) if name in _JSON and value is not None else value
        for name, value in row.items()
    }
