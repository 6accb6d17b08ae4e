"""Previews of files, each made by a process that can do nothing but read one descriptor and answer.

``pool`` (the portal's side) starts ``worker`` (the sandbox's side); they share ``wire``. What the worker sends is as untrusted as
the file: it is decoded strictly, and curves are drawn by ``plot`` on the portal's side.
"""
