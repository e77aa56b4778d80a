"""`parquet`: the tables of `tables.py` as `objects.parquet`, `intervals.parquet` and `totals.parquet`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .segmented_video import SegmentedVideo
from .tables import TABLES, Row, rows

AT_ONCE = 1 << 15  # rows of a group, which is written at once


def write(video: SegmentedVideo, folder: Path) -> list[str]:
    """Write the three files."""
    import pyarrow as arrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    types = {int: arrow.int64(), float: arrow.float64(), str: arrow.string(), bool: arrow.bool_()}
    waiting: dict[str, list[Row]] = {name: [] for name in TABLES}
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for name, columns in TABLES.items():
            schema = arrow.schema([(column, types[kind]) for column, kind in columns.items()])
            files[name] = stack.enter_context(parquet.ParquetWriter(folder / f"{name}.parquet", schema))

        def flush(name: str) -> None:
            schema = files[name].schema
            columns = list(zip(*waiting[name], strict=True)) or [()] * len(schema)
            arrays = [arrow.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            files[name].write_table(arrow.Table.from_arrays(arrays, schema=schema))
            waiting[name].clear()

        for name, row in rows(video):
            waiting[name].append(row)
            if len(waiting[name]) >= AT_ONCE:
                flush(name)
        for name in TABLES:
            flush(name)
    return []
