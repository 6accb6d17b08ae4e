"""The SRM agent: runs on each host, describes it to the API, cleans its cards.

It needs the standard library alone; with nvidia-ml-py (extra ``srm``) it also sees the cards that the host's own driver runs. It
imports nothing of ours but `beamdesk.protocol`, so that it can be installed on a hypervisor without the rest.
"""
