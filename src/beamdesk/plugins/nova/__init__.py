"""A filter and a weigher for nova-scheduler: Nova's hosts, ordered by Beamdesk's scheduling core.

```
RequestSpec ─► asked.py ─► Request ─┐
HostState   ─► seen.py  ─► Seen ────┼─► world.py (one table) ─► engine.py ─► filter.py, weigher.py
API ─► fetch.py ─► Published ───────┘                             └─► journal.py
```

Only `filter.py`, `weigher.py` and `runtime.py` import nova and oslo; all else is standard library, numpy and
`beamdesk.scheduling`, so that installing it into a nova-scheduler adds nothing to what that process trusts but numpy. Nothing
here may call Nova, Placement or the API while a request waits: the snapshot is fetched in a thread of its own.
"""
