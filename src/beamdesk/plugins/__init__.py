"""Parts of Beamdesk that run inside other programs. Each imports the scheduling core and the protocol only, never the product."""
