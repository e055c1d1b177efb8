"""Tables that data sets come with: CSV of one kind or another."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.memory import check_memory

_DELIMITERS = (",", ";", "\t")
_MEMORY = 20  # bytes that a byte of a table takes as rows


def read_rows(
    table: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> list[tuple[str, dict[str, str]]]:
    """``("file:line", {column: text})`` of each row.

    Line ends may be of either kind, columns parted by comma, semicolon or tab; space around names
    and values means nothing.

    Args:
        table: The file.
        columns: Those that have to be there.
        optional: Those that come along where they are there.

    Raises:
        UserError: If the file or a column is missing, if a row is too long or too short, or if the
            rows need more memory than there is.
    """
    try:
        check_memory(_MEMORY * table.stat().st_size, f"{table}: its rows")
        text = table.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{table}: cannot be read ({error.strerror})", option="dir") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{table}: is not UTF-8 ({error.reason}); save it as 'CSV UTF-8'"
        ) from error
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)  # the comma, where there is none of them
    stream = io.StringIO(text, newline="")
    reader = csv.DictReader(stream, delimiter=delimiter, skipinitialspace=True)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise UserError(f"{table}:1: cannot be read ({error})") from error
    missing = [column for column in columns if column not in reader.fieldnames]
    if missing:
        raise UserError(
            f"{table}:1: no column {missing[0]!r}; expected {','.join(columns)}, got "
            f"{','.join(reader.fieldnames) or 'nothing'}"
        )
    kept = [column for column in reader.fieldnames if column in {*columns, *optional}]
    rows = []
    try:
        for row in reader:
            where = f"{table}:{reader.line_num}"
            if None in row or None in row.values():
                raise UserError(f"{where}: expected {len(reader.fieldnames)} columns")
            rows.append((where, {column: row[column].strip() for column in kept}))
    except csv.Error as error:
        raise UserError(f"{table}:{reader.line_num}: cannot be read ({error})") from error
    return rows
