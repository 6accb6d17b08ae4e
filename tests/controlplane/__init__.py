"""A real all-in-one OpenStack for the tests: Keystone, Placement, Glance, Neutron, Nova and Cinder as plain processes on loopback.

Nova's computes are simulated (`plugins/farm`): everything above the hypervisor is OpenStack's own code. Nothing here is part of Beamdesk,
and nothing here may touch what it has not started itself. How to use it: docs/howto/test-openstack.md.
"""
