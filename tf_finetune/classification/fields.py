"""Texts as fields of a TSV file that is not quoted."""

import re

from tf_finetune.data.label_cells import CONTROL

_SPECIAL = re.compile(rf"[\\{CONTROL}]")
_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPED = re.compile(r"\\(?:([\\tnr])|x([0-9a-f]{2})|u([0-9a-f]{4}))")


def escape(text: str) -> str:
    r"""Writes a text so that it fits into one field.

    A backslash, a tab and a line end become `\\`, `\t`, `\n` and `\r`, other control characters
    and line separators `\x1b` or `\u2028`.
    """

    def write(match: re.Match[str]) -> str:
        code = ord(match[0])
        return _SHORT.get(match[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")

    return _SPECIAL.sub(write, text)


def unescape(field: str) -> str:
    """Returns the text from which `escape` made a field."""

    def read(match: re.Match[str]) -> str:
        if match[1]:
            return {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}[match[1]]
        return chr(int(match[2] or match[3], 16))

    return _ESCAPED.sub(read, field)
