"""Renders chat templates in a process of its own: run as a program, it answers lines of JSON.

A template is somebody's program. jinja2's sandbox keeps it from files and from Python's internals,
but not from looping or allocating without end: the limits of a process do. This file imports
nothing of the package, so that the process starts fast.

A request is {"source", "variables", "calls": [variables, or null to compile only]}; the answer is a
list with {"text"} or {"error"} for each call. Names and filters are those of `apply_chat_template`
in Hugging Face transformers.
"""

import json
import resource
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

SECONDS = 3.0  # processor time of one rendering
MEMORY = 1 << 30  # bytes of address space
CHARACTERS = 20_000_000  # of one rendered text

_REASONING = ("reasoning_content", "thinking", "reasoning")


class Generation(jinja2.ext.Extension):
    """Accepts `{% generation %}`, which marks answers for others; its content is rendered."""

    tags = {"generation"}  # noqa: RUF012  (jinja2's interface)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """Parses a block."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller: Callable[[], str]) -> str:
        return caller()


class Namespace(jinja2.utils.Namespace):
    """jinja2's namespace, without names that Python itself gives a meaning."""

    def __init__(*args: Any, **named: Any) -> None:  # `self` may be a name in a template.
        self, *rest = args
        jinja2.utils.Namespace.__init__(self)
        for name, value in dict(*rest, **named).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")
        super().__setitem__(name, value)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson`, without jinja2's escapes for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def raise_exception(message: str) -> None:
    """Lets a template refuse a conversation."""
    raise jinja2.exceptions.TemplateError(message)


@lru_cache(maxsize=16)
def compiled(source: str) -> jinja2.Template:
    """Compiles a template."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "namespace": Namespace,
    }
    return environment.from_string(source)


def prepared(message: dict[str, Any]) -> dict[str, Any]:
    """Drops keys without a value, and gives reasoning under all names that templates read."""
    message = {key: value for key, value in message.items() if value is not None}
    reasoning = [message[key] for key in _REASONING if key in message]
    if reasoning:
        return {"thinking": reasoning[0], **message, "reasoning_content": reasoning[0]}
    return message


def render(source: str, variables: dict[str, Any] | None) -> dict[str, str]:
    """Renders a template, or says why it cannot be; None: compiles it."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        template = compiled(source)
        if variables is None:
            return {"text": ""}
        variables["messages"] = [prepared(message) for message in variables["messages"]]
        size, parts = 0, []
        for part in template.generate(**variables):
            size += len(part)
            if size > CHARACTERS:
                return {"error": f"it writes more than {CHARACTERS:,} characters"}
            parts.append(part)
        return {"text": "".join(parts)}
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"error": f"line {error.lineno}: {error.message}"}
    except jinja2.exceptions.TemplateError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": f"it takes more than {MEMORY >> 20:,} MiB of memory"}
    except Exception as error:  # Whatever Python raises in somebody's program.
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Answers requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that asks.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        source, common = request["source"], request["variables"]
        answers = [render(source, call and common | call) for call in request["calls"]]
        sys.stdout.write(json.dumps(answers) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
