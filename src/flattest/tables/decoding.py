"""From the bytes of a text file to its text: compression and character encodings."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path

from flattest.tables.faults import TableError

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is the beginning of this one
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_GZIP = b"\x1f\x8b"


def decode(
    content: bytes, source: Path, encoding: str | None = None, *, usual: str | None = None
) -> str:
    """Return the text of a file.

    Parameters
    ----------
    content : bytes
        The file, compressed with gzip or not.
    source : Path
        Its name, for messages.
    encoding : str, optional
        Its character encoding. By default that of a byte-order mark, UTF-8 without one.
    usual : str, optional
        The encoding of files of this kind: that of text without a byte-order mark that has no
        characters beyond ASCII in UTF-8, which other text can hardly have by chance.

    Returns
    -------
    str
        The text, without a byte-order mark.

    Raises
    ------
    TableError
        If the bytes are no text in this encoding.

    Examples
    --------
    >>> from pathlib import Path
    >>> from flattest.tables.decoding import decode
    >>> decode("größe".encode("utf-16"), Path("t.csv"))
    'größe'
    >>> decode("5 €".encode("cp1252"), Path("t.csv"), usual="cp1252")
    '5 €'
    """
    name = repr(str(source))
    if content.startswith(_GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise TableError(f"{name} is a damaged gzip file; it may be truncated.") from error
    marked = next((kind for mark, kind in _MARKS.items() if content.startswith(mark)), None)
    if encoding is None and marked is None and usual and not _is_utf_8_beyond_ascii(content):
        encoding = usual
    chosen = encoding or marked or "utf-8"
    try:
        text = content.decode(chosen).removeprefix("\ufeff")
    except LookupError as error:
        raise TableError(
            f"There is no character encoding {chosen!r}; --encoding takes names such as cp1252."
        ) from error
    except UnicodeError as error:
        place = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        advice = (
            "name its encoding, such as --encoding cp1252, which Windows writes in Western Europe"
            if encoding is None
            else "name another --encoding"
        )
        shown = "UTF-8" if chosen == "utf-8" else chosen
        raise TableError(f"{name} is not {shown} text{place}; {advice}.") from error
    if "\0" in text:
        raise TableError(
            f"{name} is not a text file in {chosen}; if it is UTF-16, say --encoding utf-16-le."
        )
    return text


def _is_utf_8_beyond_ascii(content: bytes) -> bool:
    """Tell UTF-8 from other encodings by the characters that these write in other ways."""
    try:
        return not content.isascii() and "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False
