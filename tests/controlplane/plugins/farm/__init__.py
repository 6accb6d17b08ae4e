"""What OpenStack loads from the tests: simulated hosts with GPUs, and ports that bind anywhere. Never imported by Beamdesk."""
