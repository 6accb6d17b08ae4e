"""Numbers, each beside its peer in the same run. `python -m bench [NAME ...]`; a benchmark is a module with `main() -> None`."""
