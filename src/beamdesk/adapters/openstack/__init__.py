"""OpenStack: servers, ports, volumes, images and flavors of a cloud, behind the ports."""
