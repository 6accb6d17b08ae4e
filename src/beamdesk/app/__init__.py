"""Use cases, one function each: check policy, change desired state, commit, hint."""
