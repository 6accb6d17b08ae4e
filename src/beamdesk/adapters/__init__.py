"""One folder an outside system. Foreign exceptions become ours at this border."""
