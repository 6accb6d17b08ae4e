"""The agent inside a desktop: enrols, makes the person's account, starts display, desktop and stream, watches and repairs them.

Standard library and :mod:`beamdesk.protocol` only: this package is copied into images, loaded by the image's own Python, and every
import delays the first picture. It runs as root of the desktop; everything of the person runs with the person's uid and without any
way to gain rights. See ``docs/explanation/guest-agent.md``.
"""
