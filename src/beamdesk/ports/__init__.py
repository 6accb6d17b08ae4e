"""What the core needs from outside, as Protocols. Each has one contract suite in tests/contract/, run on every implementation."""
