"""The demonstration: people, experiments and sample data. Nothing here is used outside a demo deployment."""
