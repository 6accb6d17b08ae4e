"""User-data of a server: cloud-config that writes what the guest agent reads at its first start, and nothing else.

User-data can be read by everybody in the server and by the project's operators, for as long as the server lives. So the one-time
nonce is the only thing in it that was ever secret, and it is worthless once spent; no name, no password, no token.

The agent finds ``/run/beamdesk/agent/config.json`` (`beamdesk.guest.config.AgentConfig`) and ``nonce``; the CA of the guest API
goes to ``/etc/beamdesk/guest-ca.pem``. cloud-init writes these once; a stopped server that starts again gets a new nonce as server
metadata (``beamdesk_nonce``, read from the metadata service).
"""

from __future__ import annotations

import base64
import json

from beamdesk.adapters.openstack.config import GuestApi
from beamdesk.domain.ids import DesktopId

AGENT_DIR = "/run/beamdesk/agent"
CA_FILE = "/etc/beamdesk/guest-ca.pem"
MOST_BYTES = 65535
"""Nova's limit, after base64."""


def user_data(guest: GuestApi, desktop_id: DesktopId, nonce: str) -> str:
    """Return the cloud-config, base64-coded as Nova wants it.

    JSON is YAML: what comes from settings cannot break out of its place.
    """
    config = {"enrol_url": guest.url, "desktop_id": str(desktop_id), "persistent": True}
    files = [_file(f"{AGENT_DIR}/config.json", json.dumps(config), "0644"), _file(f"{AGENT_DIR}/nonce", nonce, "0600")]
    if guest.ca:
        files.append(_file(CA_FILE, guest.ca, "0644"))
    text = "#cloud-config\n" + json.dumps({"write_files": files}, indent=1) + "\n"
    return base64.b64encode(text.encode("ascii")).decode("ascii")


def _file(path: str, content: str, mode: str) -> dict[str, str]:
    return {"path": path, "content": content, "permissions": mode, "owner": "root:root"}
