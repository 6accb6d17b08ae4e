"""SRM records in OpenStack's Placement: one provider a card below the compute node's, which Nova leaves alone as it does Neutron's.

`model.py` says what there should be, `projection.py` makes it so. Nothing of Nova's is ever written.
"""
