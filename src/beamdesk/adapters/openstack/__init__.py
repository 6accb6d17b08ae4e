"""Desktops as servers of OpenStack clouds, through openstacksdk."""
