"""What crosses a wire to the guest agent, the privileged helper, an SRM agent or the browser.

Standard library only: this package is also copied into desktop images and loaded by the root helper, where every import costs
start-up time and attack surface.
"""
