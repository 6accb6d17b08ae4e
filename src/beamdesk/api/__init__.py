"""JSON over HTTP: one module a noun."""
