"""The history of the schema, by alembic. A released migration never changes; expand first, contract a release later."""
