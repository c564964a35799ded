"""What a database looks like from outside: columns, types, nullability, indexes and constraints.

The order of columns is left out: nothing depends on it.

Who may call it: tests.
"""

from typing import Any

import peewee

__all__ = ["Schema", "schema_of"]

#: Table → sorted facts; also `""` → the tables.
Schema = dict[str, list[tuple[Any, ...]]]


def schema_of(database: Any) -> Schema:
    """Ask the database's own catalogue."""
    with database.connection_context():
        if isinstance(database, peewee.SqliteDatabase):
            return _sqlite(database)
        queries = _MYSQL if isinstance(database, peewee.MySQLDatabase) else _POSTGRESQL
        found: Schema = {}
        for what, query in queries.items():
            for table, *facts in database.execute_sql(query).fetchall():
                found.setdefault(table, []).append((what, *facts))
        return {table: sorted(facts, key=repr) for table, facts in found.items()}


def _sqlite(database: Any) -> Schema:
    found: Schema = {}
    for (table,) in database.execute_sql("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        facts = [("column", *row) for _, *row in database.execute_sql(f"PRAGMA table_info('{table}')").fetchall()]
        for _, index, unique, origin, partial in database.execute_sql(f"PRAGMA index_list('{table}')").fetchall():
            columns = database.execute_sql(f"PRAGMA index_info('{index}')").fetchall()
            facts.append(("index", index, unique, origin, partial, *(name for _, _, name in columns)))
        found[table] = sorted(facts, key=repr)
    return found


_POSTGRESQL = {
    "column": """
        SELECT table_name, column_name, data_type, character_maximum_length, numeric_precision,
               numeric_scale, datetime_precision, is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'public'""",
    "index": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "constraint": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
}
_MYSQL = {
    "column": """
        SELECT table_name, column_name, column_type, character_set_name, collation_name, is_nullable,
               column_default, extra
        FROM information_schema.columns WHERE table_schema = DATABASE()""",
    "index": """
        SELECT table_name, index_name, seq_in_index, column_name, non_unique, sub_part
        FROM information_schema.statistics WHERE table_schema = DATABASE()""",
    "constraint": """
        SELECT table_name, constraint_name, constraint_type
        FROM information_schema.table_constraints WHERE table_schema = DATABASE()""",
    "table": """
        SELECT table_name, engine, table_collation FROM information_schema.tables WHERE table_schema = DATABASE()""",
}
