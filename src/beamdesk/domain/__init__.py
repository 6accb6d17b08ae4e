"""Nouns and rules. Pure: no framework, no driver, no asyncio, no clock."""
