"""The structure: which room may import which, and what the entries and configs say."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tf_finetune.classification.config import Config
from tf_finetune.generation.config import Config as GeneratorConfig
from tf_finetune.runs.flags import parse_flags

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "tf_finetune"
GROUND = ("errors", "files", "process")
# Bottom up: a room imports only from the ground and from rooms that stand before it.
ROOMS = (
    *("runs", "runtime", "text", "models", "formats", "data", "training"),
    *("classification", "generation", "experiments", "server"),
)
WINGS = ("classification", "generation")
# The parts of data/ that belong to a wing: nothing else in the hull imports them. Experiments and
# the server stand above both wings, and read the rows of either.
DOORS = {
    "classification": (
        *("label_config", "label_cells", "label_format", "label_notices", "labels", "learn"),
        *("problem", "tasks", "layout", "columns", "selection", "cells", "checks", "labelled"),
        *("repeats", "facts", "report"),
    ),
    "generation": (
        *("chat_config", "conversations", "text_cells", "tool_calls", "messages", "dialogue_rows"),
        *("preference_rows", "prompt_columns", "dialogue_forms", "dialogue_reader", "dialogues"),
        *("dialogue_repeats", "dialogue_facts", "dialogue_report", "marked"),
    ),
}
# What a run needs before TensorFlow is imported: settings, and what reads and checks its rows.
WITHOUT_TENSORFLOW = (
    *("classification.command", "classification.prepare", "experiments.compare", "runs.command"),
    "experiments.report",
    *("data.blocks", "data.facts", "data.file_format", "data.held_out", "data.labelled"),
    *("data.paths", "data.readers", "data.records", "data.repeats", "data.report"),
    *("data.row_stream", "data.splits", "runtime.interrupt"),
    *("data.dialogues", "data.dialogue_facts", "data.dialogue_report", "data.marked"),
    *("generation.command", "generation.prepare", "text.answers", "text.chat"),
    *("data.packing",),
    # A server that only trains starts commands, and never loads it.
    *("server.completions", "server.engine"),
    *("server.app", "server.command", "server.jobs", "server.models", "server.queue"),
)


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name without the package's."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }


def imports(path: Path) -> set[str]:
    """The modules that a file imports, those within functions too."""
    return _found(ast.parse(path.read_text(encoding="utf-8")))


def _found(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tf_finetune"):
            module = (node.module or "").removeprefix("tf_finetune").removeprefix(".")
            inner = [f"{module}.{alias.name}".strip(".") for alias in node.names]
            known = [name for name in inner if name in modules()]
            found |= set(known) or ({module} if module else set())
    return found


def room(module: str) -> str:
    return module.split(".")[0]


GRAPH = {name: imports(path) for name, path in modules().items()}


def test_nothing_else_stands_on_the_ground():
    assert sorted(GROUND) == sorted({name for name in GRAPH if "." not in name} - {"__main__"})


def test_every_folder_is_a_room_with_a_line_that_says_what_it_is_for():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(ROOMS)
    for folder in folders:
        doc = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text("utf-8")))
        assert doc and doc.endswith(".")


def test_rooms_import_only_from_those_below():
    level = {name: 0 for name in GROUND} | {name: n for n, name in enumerate(ROOMS, start=1)}
    wrong = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if room(name) in level
        and room(other) in level
        and room(name) != room(other)
        and level[room(other)] >= level[room(name)]
    ]
    assert not wrong


def test_no_circle_anywhere():
    TopologicalSorter(GRAPH).prepare()  # raises CycleError, which names the circle


def test_the_wings_never_meet():
    assert not [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if room(name) in WINGS and room(other) in WINGS and room(name) != room(other)
    ]


@pytest.mark.parametrize("wing", WINGS)
def test_only_a_wing_and_what_stands_above_go_through_its_door_of_data(wing: str):
    door = {f"data.{name}" for name in DOORS[wing]}
    assert door <= GRAPH.keys()
    assert not [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others & door
        if name not in door and room(name) not in (wing, "experiments", "server")
    ]


def test_what_a_run_needs_first_imports_no_tensorflow():
    names = [f"tf_finetune.{name}" for name in WITHOUT_TENSORFLOW]
    names += [f"tf_finetune.{name}" for name in GRAPH if room(name) == "runs"]
    program = f"import importlib, sys; [importlib.import_module(n) for n in {names}]"
    program += (
        "; print([n for n in ('tensorflow', 'keras', 'matplotlib', 'sklearn') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_only_the_flags_know_absl():
    users = [name for name, path in modules().items() if "from absl" in path.read_text("utf-8")]
    assert [user.split(".")[-1] for user in users] == ["flags"]


def test_the_entries_are_short():
    for path in REPOSITORY.glob("run_*.py"):
        assert len(path.read_text().splitlines()) < 25


def test_no_file_is_long():
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in modules().items()}
    assert not {name: length for name, length in lengths.items() if length > 300}


def test_no_function_outside_layers_has_more_than_seven_parameters():
    long = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and room(name) != "models":
                arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                if len([a for a in arguments if a.arg not in ("self", "cls")]) > 7:
                    long.append(f"{name}: {node.name}")
    assert not long


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs").glob("*.cfg")), ids=lambda p: p.stem
)
def test_every_config_parses_and_opens_with_its_command(path):
    lines = path.read_text().splitlines()
    generates = any(line.startswith("--model=") for line in lines)
    config = GeneratorConfig if generates else Config
    assert parse_flags(config, ["x", f"--flagfile={path}"]) is not None
    command = f"{config.program} --flagfile=configs/{path.name}"
    assert any(line.startswith("#") and command in line for line in lines)
