"""The store on SQLite and PostgreSQL, by SQLAlchemy Core. One schema, one set of statements; differences are named in `engine`."""
