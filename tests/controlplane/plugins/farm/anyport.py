"""An ML2 mechanism driver that binds every port on every host, without an agent.

The simulated hosts have no bridge. A libvirt host gets a macvtap device on one end of a veth pair (`BEAMDESK_MACVTAP`, default
``beamdesk0``): libvirt makes that itself, so it needs neither an agent nor a switch.
"""

import os

from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.plugins.ml2 import api


class AnyPort(api.MechanismDriver):
    """Bind on the first segment; security groups are stored and not enforced."""

    def initialize(self):
        """Take no configuration."""
        self._parent = os.environ.get("BEAMDESK_MACVTAP", "beamdesk0")

    @property
    def connectivity(self):
        """Say that ports are on a layer-2 network."""
        return portbindings.CONNECTIVITY_L2

    def bind_port(self, context):
        """Bind and report the port as active at once."""
        details = {
            portbindings.CAP_PORT_FILTER: False,
            "macvtap_source": self._parent,
            "macvtap_mode": "bridge",
            "physical_interface": self._parent,
        }
        for segment in context.segments_to_bind[:1]:
            context.set_binding(segment[api.ID], "macvtap", details, status=constants.PORT_STATUS_ACTIVE)
