"""Tables that data sets come with, as spreadsheets, databases and other programs write them."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from datasets.scan import folded, is_picture
from utils.console import say
from utils.errors import UserError

T = TypeVar("T")
Row = dict[str, str]
_DELIMITERS = (",", ";", "\t", "|", " ")
_MOST_BYTES = 500_000_000  # of a table or list: some ten million rows
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NAMED = 8  # refused lines in a message


def read_rows(
    table: Path,
    columns: Sequence[str],
    convert: Callable[[Row, str], T],
    *,
    optional: Sequence[str] = (),
    encoding: str | None = None,
) -> list[T]:
    """``convert({column: text}, "file:line")`` of each row.

    Columns may be parted by comma, semicolon, tab, bar or spaces; Excel's ``sep=;`` in the first
    line counts. The case of column names, spaces for underscores in them, and space around names
    and values do not count; nor do empty rows and columns at the end. Without a header, the
    columns are ``columns`` in their order.

    Args:
        table: The file.
        columns: Those that have to be there.
        convert: Its UserErrors are collected.
        optional: Those that come along where they are there.
        encoding: That of the file, if the caller has such an option; empty or ``None``: UTF-8, or
            UTF-16 with its mark.

    Raises:
        UserError: If the file or a column is missing, or rows are refused or have too many or too
            few columns: with the first of them, and how many there are.
    """
    rows = _rows(table, _text(table, encoding))
    first, header = next(rows, (1, []))
    names = _names(header, [*columns, *optional])
    if header and columns[0] not in names and is_picture(header[0]) and len(header) >= len(columns):
        say(f"{table}: has no header; its columns are taken for {', '.join(columns)}")
        names = [*columns, *header[len(columns) :]]
        rows = _rows(table, _text(table, encoding))
    missing = [column for column in columns if column not in names]
    if missing:
        raise UserError(
            f"{table}:{first}: no column {missing[0]!r}; expected {','.join(columns)}, got "
            f"{','.join(names) or 'nothing'}"
        )
    kept = {name: i for i, name in enumerate(names) if name in (*columns, *optional)}
    values, refused, count, file = [], list[int](), 0, str(table)
    problem: UserError | None = None
    for count, (line, row) in enumerate(rows, start=1):  # noqa: B007 - it is used below
        where = f"{file}:{line}"
        try:
            if len(row) < len(names) or any(row[len(names) :]):
                raise UserError(f"{where}: expected {len(names)} columns")
            values.append(convert({name: row[i] for name, i in kept.items()}, where))
        except UserError as error:
            refused.append(line)
            problem = problem or error  # the others would fill the memory
    if problem:
        lines = ", ".join(map(str, refused[:_NAMED]))
        more = f"; {len(refused)} of {count} rows are refused, lines {lines}" if refused[1:] else ""
        raise UserError(
            f"{problem}{more}{', ...' if len(refused) > _NAMED else ''}", option=problem.option
        )
    return values


def read_list(file: Path) -> bytes:
    """The content of a table or list.

    Raises:
        OSError: If it cannot be read.
        UserError: If it may never end, or is larger than any that anybody writes.
    """
    if file.exists() and not file.is_file():
        raise UserError(f"{file}: is a folder or a device; name a file")
    size = file.stat().st_size if file.exists() else 0
    if size > _MOST_BYTES:
        raise UserError(
            f"{file}: has {size:,} bytes, and tables of up to {_MOST_BYTES:,} are read: leave out "
            "columns, or split it"
        )
    with file.open("rb") as stream:  # files of /proc have no size
        return stream.read(size or _MOST_BYTES)  # so much memory is reserved


def _text(table: Path, encoding: str | None) -> str:
    try:
        content = read_list(table)
    except OSError as error:
        inside = sorted(table.parent.glob(f"*/{table.name}"))
        hint = f"; there is {inside[0]}: name its folder" if inside else ""
        raise UserError(
            f"{table}: cannot be read ({error.strerror}){hint}", option="dir"
        ) from error
    chosen = encoding or ("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    try:
        return content.decode(chosen)
    except LookupError as error:
        raise UserError(
            f"{table}: {error}; such as cp1252 or gb18030", option="encoding"
        ) from error
    except UnicodeError as error:  # of some codecs no UnicodeDecodeError
        reason = getattr(error, "reason", error)
        what = f"is not {encoding or 'UTF-8'} ({reason}); save it as 'CSV UTF-8'"
        hint = "" if encoding is None else ", or name its code page, such as encoding=cp1252"
        raise UserError(f"{table}: {what}{hint}") from error


def _rows(table: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of the rows that are not empty."""
    first = text.partition("\n")[0].strip()
    delimiter = max(_DELIMITERS[:-1], key=first.count)
    if delimiter not in first and " " in first:
        delimiter = " "
    if named := re.fullmatch(r'"?sep=(.)"?', first, re.IGNORECASE):
        delimiter = named[1]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells) and not (named and reader.line_num == 1):
                yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(f"{table}:{reader.line_num}: cannot be read ({error})") from error


def _names(header: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The names of the columns, in the spelling of ``wanted``, without empty ones at the end.

    ``Image Path`` is ``image_path``.
    """
    spelled = {_plain(name): name for name in wanted if name not in header}
    names = [spelled.pop(_plain(name), name) for name in header]
    while names and not names[-1]:
        names.pop()
    return names


def _plain(name: str) -> str:
    return folded(name).replace(" ", "_")
