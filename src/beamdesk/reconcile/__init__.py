"""Claim, observe, decide, act, apply; and the sweeper."""
