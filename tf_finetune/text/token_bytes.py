"""The bytes of a token: a character may be made of those of several."""

import re

from tf_finetune.text.tokenizer import Tokenizer

# GPT-2's letters for bytes: those that can be seen stand for themselves, the others follow 255.
_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTES = {chr(byte): byte for byte in _VISIBLE}
BYTES |= {chr(256 + n): byte for n, byte in enumerate(b for b in range(256) if b not in _VISIBLE)}
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_bytes(tokenizer: Tokenizer, id: int) -> bytes:
    """Returns the bytes of a token, in UTF-8 where it is made of whole characters.

    Args:
        tokenizer: The tokenizer.
        id: The token.
    """
    text = tokenizer.decode([id], skip_special_tokens=False)
    if "\ufffd" not in text:
        return text.encode()
    token = tokenizer.token(id)
    if byte := _BYTE.fullmatch(token):
        return bytes.fromhex(byte[1])
    if BYTES.keys() >= set(token):
        return bytes(BYTES[letter] for letter in token)
    return text.encode()
