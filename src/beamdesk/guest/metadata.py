"""The cloud's metadata service, asked for one thing: the nonce of a machine that was stopped and is started again.

Its first boot brought the nonce in the user-data, which never changes; server metadata does. The service answers every process of
this machine, so what it says is worth no more than a nonce: nothing once spent.
"""

from __future__ import annotations

import http.client
import json

HOST, PORT = "169.254.169.254", 80
PATH = "/openstack/latest/meta_data.json"
KEY = "beamdesk_nonce"
_TIMEOUT_S = 3.0
_MAX_BYTES = 256 * 1024


def nonce(host: str = HOST, port: int = PORT) -> str:
    """Return the nonce that the cloud holds for this server; empty if there is none or no such service."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", PATH)
        answer = connection.getresponse()
        found = json.loads(answer.read(_MAX_BYTES)) if answer.status == http.client.OK else {}
        value = found["meta"][KEY]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return ""
    finally:
        connection.close()
    return value if isinstance(value, str) else ""
