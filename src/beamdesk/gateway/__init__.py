"""Browser stream to desktop: tickets become sessions, sessions become relayed bytes. Runs alone in its process."""
