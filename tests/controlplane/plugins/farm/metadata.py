"""What Neutron's metadata agent does: take a machine's question, find out by its address which machine asks, ask Nova in its name.

``BEAMDESK_METADATA``: address to listen on, Nova's address and port, the secret shared with Nova. The cloud is `admin` of clouds.yaml.
Nova believes the signature: HMAC-SHA256 of the server's id.
"""

import hashlib
import hmac
import http.client
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openstack

LISTEN, NOVA, NOVA_PORT, SECRET = os.environ["BEAMDESK_METADATA"].split()
_cloud = openstack.connect(cloud="admin")
_one_at_a_time = threading.Lock()  # a connection of the SDK is for one thread


class Handler(BaseHTTPRequestHandler):
    """One question."""

    timeout = 60

    def do_GET(self):
        """Pass it on; 404 for one who is no machine."""
        address = self.client_address[0]
        with _one_at_a_time:
            ports = list(_cloud.network.ports(fixed_ips=f"ip_address={address}"))
        if len(ports) != 1 or not ports[0].device_id:
            self.send_error(http.client.NOT_FOUND)
            return
        server = ports[0].device_id
        headers = {
            "X-Instance-ID": server,
            "X-Instance-ID-Signature": hmac.new(SECRET.encode(), server.encode(), hashlib.sha256).hexdigest(),
            "X-Tenant-ID": ports[0].project_id,
            "X-Forwarded-For": address,
        }
        nova = http.client.HTTPConnection(NOVA, int(NOVA_PORT), timeout=60)
        nova.request("GET", self.path, headers=headers)
        answer = nova.getresponse()
        body = answer.read()
        nova.close()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.getheader("Content-Type") or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer((LISTEN, 80), Handler).serve_forever()
